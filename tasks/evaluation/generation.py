"""Pictures of the captions by every candidate: from which noise, in which batches, and where.

A picture is a function of candidate, prompt and seed, but for its last bits, which are a matter
of what it is painted beside. So batches are always the same ones, cut at multiples of
``generate.batch_images``: whoever paints them, in whatever order, and after whatever stop.
"""

import contextlib
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import atomic, checksums, images
from atelier.config.fields import Params, Whole
from atelier.config.profile import Profile
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Tree
from atelier.images import Pixels
from atelier.models import adapters, loading, sampling
from atelier.models.denoiser import Denoiser
from atelier.reporting import Report
from tasks.evaluation import captions
from tasks.run import progress, resume
from tasks.training.prompts import Prompts

if TYPE_CHECKING:
    # Not for more: pictures do not depend on what candidates are called and said to be.
    from atelier.models.adapters import State
    from tasks.evaluation.candidates import Candidate


_WAITING = 64  # pictures that may wait for the disk


class Batch(Params):
    """What one candidate paints at once: the pictures from ``start`` to the batch's end."""

    candidate: str
    start: Whole


@dataclass(frozen=True)
class GenerationJob:
    """All that is to be painted.

    Attributes:
        candidates: The models that paint.
        keys: Of each candidate's pictures, by its name.
        records: The images whose captions are painted, in order.
        criteria: The tree that the dataset was judged by.
        profile: In force.
    """

    candidates: Sequence["Candidate"]
    keys: Mapping[str, str]
    records: Sequence[Record]
    criteria: Tree
    profile: Profile

    def folder(self, candidate: str) -> Path:
        """Return where a candidate's pictures lie until all of them are there."""
        return resume.folder(f"generate-{candidate}", self.keys[candidate])

    def file(self, candidate: str, index: int) -> Path:
        """Return where a picture lies, or will."""
        return self.folder(candidate) / "pictures" / f"{index:03}.png"

    def sum_of(self, candidate: str, index: int) -> Path:
        """Return where a picture's checksum lies."""
        return self.folder(candidate) / "sums" / f"{index:03}.png.sha256"

    def rows(self, batch: Batch) -> range:
        """Return the indices of a batch's pictures."""
        end = batch.start + self.profile.generate.batch_images
        return range(batch.start, min(end, len(self.records)))

    def missing(self, names: Sequence[str]) -> list[Batch]:
        """Return the batches of some candidates of which a picture is not there."""
        size = self.profile.generate.batch_images
        every = [
            Batch(candidate=name, start=start)
            for name in names
            for start in range(0, len(self.records), size)
        ]
        return [batch for batch in every if not self._is_whole(batch)]

    def _is_whole(self, batch: Batch) -> bool:
        return all(self.file(batch.candidate, index).is_file() for index in self.rows(batch))


def paint_missing(job: GenerationJob, names: Sequence[str]) -> None:
    """Let some candidates paint what is not there yet."""
    _remove_damaged(job, names)
    waiting = job.missing(names)
    if not waiting:
        return
    every = len(names) * len(job.records)
    done = every - sum(len(job.rows(batch)) for batch in waiting)
    with progress.bar("paint", every, "pictures") as report:
        report(done, {})
        painter = load(job, {batch.candidate for batch in waiting})
        _beside(
            lambda name, index, picture: _put(job, name, index, images.png(picture)),
            _pictures(painter, job, waiting, progress.after(done, report)),
        )


def _remove_damaged(job: GenerationJob, names: Sequence[str]) -> None:
    """Remove pictures that are not as they were painted, so that they are painted again."""
    for name in names:
        for index in range(len(job.records)):
            file = job.file(name, index)
            if file.is_file() and checksums.damaged(file, job.sum_of(name, index)):
                file.unlink()
                warnings.warn(
                    f"{file} is not as it was painted: damaged on the disk; its batch is "
                    "painted again",
                    stacklevel=2,
                )


def load(job: GenerationJob, names: Collection[str]) -> Denoiser:
    """Load the base with the LoRAs of some candidates."""
    painter = loading.load(job.profile.model)
    painting = [one for one in job.candidates if one.name in names]
    loras = {name: folder for one in painting for name, folder in one.loras().items()}
    for name, folder in loras.items():
        adapters.attach(painter, name, folder)
    return painter


def paint(
    painter: Denoiser, job: GenerationJob, wanted: Sequence[Batch], report: Report
) -> Iterator[tuple[str, int, bytes]]:
    """Yield candidate, index and PNG of each picture of the given batches.

    Args:
        painter: As ``load`` gave it, with these candidates' LoRAs.
        job: What the batches are of.
        wanted: Batches, each candidate's in order.
        report: Told how many pictures are done.
    """
    for name, index, picture in _pictures(painter, job, wanted, report):
        yield name, index, images.png(picture)


def _pictures(
    painter: Denoiser, job: GenerationJob, wanted: Sequence[Batch], report: Report
) -> Iterator[tuple[str, int, Pixels]]:
    """Candidate, index and pixels of each picture."""
    sampled = job.profile.generate
    writer = Prompts(painter, job.criteria, sampled.seed)
    noise = captions.seeds(sampled.seed, len(job.records))
    done = 0
    for one in job.candidates:
        own = [batch for batch in wanted if batch.candidate == one.name]
        if not own:
            continue  # its weights are not loaded
        rows = [index for batch in own for index in job.rows(batch)]
        with _state(painter, one):
            painted = sampling.paint(
                painter,
                [prompt(one, job.records[index], writer) for index in rows],
                [noise[index] for index in rows],
                one.how(job.profile),
                pixels=job.profile.model.pixels,
                batch_images=sampled.batch_images,
                report=progress.after(done, report),
            )
            for index, picture in zip(rows, painted, strict=True):
                yield one.name, index, picture
        done += len(rows)


def _beside(work: Callable[..., None], items: Iterable[tuple[Any, ...]]) -> None:
    """Let a thread work on each item while the next ones are made.

    What goes wrong there is raised when the next item is made.
    """
    begun: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for item in items:
            while begun and (begun[0].done() or len(begun) > _WAITING):
                begun.popleft().result()
            begun.append(pool.submit(work, *item))
        for one in begun:
            one.result()


def prompt(one: "Candidate", record: Record, writer: Prompts) -> str:
    """Return what a candidate is asked to paint: the caption, with good poles for some."""
    return writer.flipped(record) if one.with_positives else writer.write(record, ())


def keep(job: GenerationJob, painted: Iterable[tuple[str, int, bytes]]) -> int:
    """Put pictures where the stage finds them; return how many."""
    count = 0
    for candidate, index, png in painted:
        _put(job, candidate, index, png)
        count += 1
    return count


def _put(job: GenerationJob, candidate: str, index: int, png: bytes) -> None:
    file, at = job.file(candidate, index), job.sum_of(candidate, index)
    at.unlink(missing_ok=True)
    atomic.write(file, png)
    checksums.write(file, at)


def _state(painter: Denoiser, one: "Candidate") -> contextlib.AbstractContextManager[None]:
    if one.negative is None:
        return adapters.use(painter.network, one.adapter)
    return sampling.branches(painter, one.adapter, _negative_state(one))


def _negative_state(one: "Candidate") -> "State":
    """The state on the negative branch of guidance."""
    assert one.negative is not None
    own = {} if one.adapter is None else {one.adapter: 1 - one.negative.w}
    return own | {one.negative.adapter: 1.0}
