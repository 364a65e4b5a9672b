"""The pictures that ``evaluate`` compares: who paints which, from which noise, and where.

A picture is a function of painter, prompt and seed, but for its last bits, which are a matter
of what it is painted beside. So batches are always the same ones, cut at multiples of
``generate.batch_images``: whoever paints them, in whatever order, and after whatever stop.
"""

import contextlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atelier import atomic, checksums, images
from atelier.config.evaluation import GenerateParams
from atelier.config.fields import Params, Whole
from atelier.config.profile import Profile
from atelier.criteria import annotations, captions, tree
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Tree
from atelier.models import adapters, loading, sampling
from atelier.models.denoiser import Denoiser
from atelier.reporting import Report
from tasks.evaluation import candidates
from tasks.evaluation.candidates import Candidate
from tasks.run import paths, progress, resume
from tasks.training import keys, prompts
from tasks.training.prompts import Prompts


class Batch(Params):
    """What one painter paints at once: the pictures from ``start`` to the batch's end."""

    painter: str
    start: Whole


@dataclass(frozen=True)
class GenerationJob:
    """All that is to be painted.

    Attributes:
        compared: Who paints.
        records: Whose captions, in order.
        criteria: As the pictures were judged that were learned from.
        profile: In force.
        work: Where pictures lie until the stage has ended.
    """

    compared: Sequence[Candidate]
    records: Sequence[Record]
    criteria: Tree
    profile: Profile
    work: Path

    def file(self, painter: str, index: int) -> Path:
        """Return where a picture lies, or will."""
        return self.work / painter / f"{index:03}.png"

    def sum_of(self, painter: str, index: int) -> Path:
        """Return where a picture's checksum lies: not beside it, for pictures are an out."""
        return self.work / "sums" / painter / f"{index:03}.png.sha256"

    def rows(self, batch: Batch) -> range:
        """Return the indices of a batch's pictures."""
        end = batch.start + self.profile.generate.batch_images
        return range(batch.start, min(end, len(self.records)))

    def missing(self) -> list[Batch]:
        """Return the batches that are not whole; one of which a picture is there is not."""
        size = self.profile.generate.batch_images
        every = [
            Batch(painter=one.name, start=start)
            for one in self.compared
            for start in range(0, len(self.records), size)
        ]
        return [batch for batch in every if not self._is_whole(batch)]

    def _is_whole(self, batch: Batch) -> bool:
        return all(self.file(batch.painter, index).is_file() for index in self.rows(batch))


def of(profile: Profile) -> GenerationJob:
    """Return what is to be painted with a profile; nothing is written.

    Raises:
        ArtifactError: What a stage before this one makes is absent.
    """
    compared = candidates.of(profile)
    test = annotations.read(part_examined(profile), Record)
    return GenerationJob(
        compared,
        painted_records(test, profile.generate.prompts),
        tree.parse(paths.JUDGED_BY),
        profile,
        _work(profile, compared),
    )


def part_examined(profile: Profile) -> Path:
    """Return the file of the part whose captions are painted."""
    return paths.SPLIT / f"{profile.generate.part}.jsonl"


def seeds(seed: int, count: int) -> list[int]:
    """Return the seed of each prompt's starting noise, a function of (seed, index) alone."""
    return [
        int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        for index in range(count)
    ]


def painted_records(test: Sequence[Record], count: int) -> list[Record]:
    """Return ``count`` test records in the order of their hashes: subjects mix, runs agree."""
    return sorted(test, key=lambda record: record.image)[:count]


def take_kept(asked: GenerationJob) -> None:
    """Begin with the pictures of the last run, if they are of the same painters and prompts."""
    kept = paths.PICTURES / asked.work.name
    if asked.work.is_dir() or not kept.is_dir():
        return
    atomic.copy_tree(kept, asked.work)


def paint_missing(asked: GenerationJob) -> None:
    """Let every painter paint what is not there yet."""
    _set_damaged_aside(asked)
    waiting = asked.missing()
    if not waiting:
        return  # only something else is to be measured of the same pictures
    every = len(asked.compared) * len(asked.records)
    done = every - sum(len(asked.rows(batch)) for batch in waiting)
    with progress.bar("paint", every, "pictures") as report:
        report(done, {})
        keep(asked, paint(load(asked), asked, waiting, progress.after(done, report)))


def _set_damaged_aside(asked: GenerationJob) -> None:
    """Let what the disk does not give back as it was painted be painted again."""
    for one in asked.compared:
        for index in range(len(asked.records)):
            file = asked.file(one.name, index)
            if file.is_file() and checksums.damaged(file, asked.sum_of(one.name, index)):
                file.unlink()
                warnings.warn(
                    f"{file} is not as it was painted: damaged on the disk; its batch is "
                    "painted again",
                    stacklevel=2,
                )


def load(asked: GenerationJob) -> Denoiser:
    """Load the base with the LoRAs of all who paint."""
    painter = loading.load(asked.profile.model)
    loras = {name: folder for one in asked.compared for name, folder in one.loras().items()}
    for name, folder in loras.items():
        adapters.attach(painter, name, folder)
    return painter


def paint(
    painter: Denoiser, asked: GenerationJob, wanted: Sequence[Batch], report: Report
) -> Iterator[tuple[str, int, bytes]]:
    """Yield painter, index and PNG of each picture of the given batches.

    Args:
        painter: As ``load`` gave it.
        asked: What the batches are of.
        wanted: Batches, each painter's in order.
        report: Told how many pictures are done.
    """
    sampled = asked.profile.generate
    writer = Prompts(painter, asked.criteria, sampled.seed)
    noise = seeds(sampled.seed, len(asked.records))
    done = 0
    for one in asked.compared:
        own = [batch for batch in wanted if batch.painter == one.name]
        rows = [index for batch in own for index in asked.rows(batch)]
        with _state(painter, one):
            painted = sampling.paint(
                painter,
                one.prompts([asked.records[index] for index in rows], writer),
                [noise[index] for index in rows],
                steps=sampled.steps,
                guidance=sampled.guidance,
                pixels=asked.profile.model.pixels,
                batch_images=sampled.batch_images,
                report=progress.after(done, report),
            )
            for index, picture in zip(rows, painted, strict=True):
                yield one.name, index, images.png(picture)
        done += len(rows)


def keep(asked: GenerationJob, painted: Iterable[tuple[str, int, bytes]]) -> int:
    """Put pictures where the stage finds them; return how many."""
    count = 0
    for painter, index, png in painted:
        file, at = asked.file(painter, index), asked.sum_of(painter, index)
        at.unlink(missing_ok=True)
        atomic.write(file, png)
        checksums.write(file, at)
        count += 1
    return count


def _work(profile: Profile, compared: Sequence[Candidate]) -> Path:
    """Where pictures are painted: what decides how they look, and no more, names it."""
    folders = [folder for one in compared for folder in one.loras().values()]
    return resume.folder(
        "evaluate",
        _sampled_by(profile.generate),
        profile.model,
        keys.base(profile),
        paths.JUDGED_BY,
        part_examined(profile),
        *(adapters.file(folder) for folder in dict.fromkeys(folders)),
        *(f"{one.name} {one.negative}" for one in compared),
        *_painting_code(),
    )


def _painting_code() -> list[Path]:
    """The code that paints: kept pictures are forgotten when it changes."""
    folder = Path(loading.__file__).parent
    return [*sorted(folder.rglob("*.py")), Path(captions.__file__), Path(prompts.__file__)]


def _sampled_by(params: GenerateParams) -> str:
    """What of ``evaluate:`` a picture depends on; metrics and intervals do not move it."""
    decides = {"prompts", "steps", "guidance", "batch_images", "seed"}
    return json.dumps(params.model_dump(include=decides), sort_keys=True)


def _state(painter: Denoiser, one: Candidate) -> contextlib.AbstractContextManager[None]:
    if one.negative is None:
        return adapters.use(painter.network, one.adapter)
    return sampling.branches(painter, one.adapter, one.negative_state())
