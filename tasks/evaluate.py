"""Stage ``evaluate``: base, θ1 and each θ paint the test captions, and are compared."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from atelier import atomic, images, models, parallel
from atelier.criteria import annotations, annotators, captions, tree
from atelier.criteria.annotations import Judgement, Record
from atelier.criteria.annotators import Annotator, measured
from atelier.criteria.annotators.vlm import Agent, Sight
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError, ParamsError
from atelier.evaluation import comparison
from atelier.evaluation.comparison import Painted, Real
from atelier.evaluation.metrics import negatives, starter_features
from atelier.evaluation.metrics.starter_features import Network
from atelier.images import Pixels
from atelier.models import Denoiser, adapters, sampling
from atelier.params import EvaluateParams, Profile
from atelier.reporting import Report
from tasks import (
    agent,
    contestants,
    corpus,
    features,
    paths,
    progress,
    prompts,
    registry,
    results,
    resume,
    scoring,
    table,
)
from tasks.contestants import Contestant
from tasks.prompts import Prompts
from tasks.tracking import StageRun

FirstJudge = Callable[[Sequence[Path], Report], list[Judgement]]


def run(profile: Profile, tracked: StageRun) -> None:
    """Paint, judge, measure, and write what DVC, MLflow and people read.

    Reads the part that ``evaluate.part`` names, its paintings and the adapters of sft and cpo;
    writes pictures, judgements, metrics, plots and the report under ``paths.EVALUATE``.
    Pictures painted by an interrupted run are kept.

    Raises:
        ArtifactError: An input is absent, or belongs to another base model.
        ParamsError: The annotator cannot judge pictures that it has never seen.
    """
    criteria = tree.parse(paths.JUDGED_BY)
    annotator = annotator_in_force(profile, criteria)
    entries = scoring.survey(profile)
    extractor, second = scoring.extractor(profile, entries), _second_judge(profile)
    compared = contestants.of(profile)
    test = annotations.read(part_examined(profile), Record)
    examined = painted_records(test, profile.evaluate.prompts)
    work = _work(profile, compared)
    _paint(compared, examined, criteria, profile, work)
    with first_judge(profile, annotator, criteria) as (judge_name, judge):
        first = (judge_name, judge)
        painted = _judge(compared, len(examined), first, second, criteria, work)
    wanted = [record.caption for record in examined]
    scores, entries = scoring.by_picture(
        entries, {name: one.images for name, one in painted.items()}, wanted, profile
    )
    real = real_paintings(test, profile)
    measured_results = comparison.compare(
        painted,
        real,
        criteria,
        extractor,
        metrics=[name for name, entry in entries.items() if not entry.unavailable],
        learned=scoring.learned(profile, extractor),
        scores=scores,
        reference=contestants.BASE,
        resamples=profile.evaluate.bootstrap,
        seed=profile.evaluate.seed,
    )
    _keep_pictures(compared, work)
    results.write(
        results.Outcome(
            compared,
            painted,
            measured_results,
            wanted,
            criteria,
            entries,
            annotator=judge_name,
            second=None if second is None else starter_features.NAME,
            extractor=None if extractor is None else extractor.name,
            unseen=scoring.unseen(real, extractor, len(examined), profile),
            pairs=scoring.closest(measured_results, profile),
        ),
        profile,
        tracked,
    )
    _keep_for_later(work)
    registry.run(evaluating=True)
    table.run()


def part_examined(profile: Profile) -> Path:
    """Return the file of the part whose captions are painted."""
    return paths.SPLIT / f"{profile.evaluate.part}.jsonl"


def seeds(seed: int, count: int) -> list[int]:
    """Return the seed of each prompt's starting noise, a function of (seed, index) alone."""
    return [
        int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        for index in range(count)
    ]


def painted_records(test: Sequence[Record], count: int) -> list[Record]:
    """Return ``count`` test records in the order of their hashes: subjects mix, runs agree."""
    return sorted(test, key=lambda record: record.image)[:count]


def annotator_in_force(profile: Profile, criteria: Tree) -> Annotator:
    """Return who judged the corpus, if he can judge pictures that were just painted.

    Raises:
        ParamsError: He replays judgements.
    """
    if profile.annotate.annotator == "recorded":
        raise ParamsError(
            "annotate.annotator 'recorded' replays judgements and has none of pictures that "
            "were not painted yet; evaluate needs one that sees pixels. Let annotator be "
            "'measured' or 'vlm', leave the files under recorded, and say by "
            "annotate.adjudication whose judgements are learned from"
        )
    return annotators.load(profile.annotate.annotator, criteria)


@contextlib.contextmanager
def first_judge(
    profile: Profile, annotator: Annotator, criteria: Tree
) -> Iterator[tuple[str, FirstJudge]]:
    """Yield who judged the paintings that were learned from, by name: it judges these too."""
    if profile.annotate.annotator == "vlm":
        with agent.opened(criteria, profile.annotate.vlm, _NO_LIMIT) as expert:
            yield expert.name, partial(_experts_opinion, expert)
    else:
        yield measured.NAME, partial(_first_opinion, annotator)


def _second_judge(profile: Profile) -> Network | None:
    """The independent judge, which knows the starter's drawings and nothing else."""
    if profile.evaluate.second_judge is None:
        return None
    return starter_features.read(features.FOLDER)


def _work(profile: Profile, compared: Sequence[Contestant]) -> Path:
    """Where pictures are painted: what decides how they look, and no more, names it."""
    folders = [folder for one in compared for folder in one.loras().values()]
    work = resume.folder(
        "evaluate",
        _sampled_by(profile.evaluate),
        profile.model,
        corpus.weights_of(profile),
        paths.JUDGED_BY,
        part_examined(profile),
        *(adapters.file(folder) for folder in dict.fromkeys(folders)),
        *(f"{one.name} {one.negative}" for one in compared),
        *_painting_code(),
    )
    if not work.is_dir() and (paths.PICTURES / work.name).is_dir():
        with atomic.clear_disk_errors(work):
            shutil.copytree(paths.PICTURES / work.name, work)
    return work


def _painting_code() -> list[Path]:
    """The code that paints: kept pictures are forgotten when it changes."""
    folder = Path(models.__file__).parent
    return [*sorted(folder.glob("*.py")), Path(captions.__file__), Path(prompts.__file__)]


def _sampled_by(params: EvaluateParams) -> str:
    """What of ``evaluate:`` a picture depends on; metrics and intervals do not move it."""
    decides = {"prompts", "steps", "guidance", "batch_images", "seed"}
    return json.dumps(params.model_dump(include=decides), sort_keys=True)


def _paint(
    compared: Sequence[Contestant],
    records: Sequence[Record],
    criteria: Tree,
    profile: Profile,
    work: Path,
) -> None:
    """Let every painter paint what is not there yet."""
    if all(
        _first_missing(work / one.name, len(records), 1) == len(records) for one in compared
    ):
        return  # only something else is to be measured of the same pictures
    painter = models.load(profile.model)
    loras = {name: folder for one in compared for name, folder in one.loras().items()}
    for name, folder in loras.items():
        adapters.attach(painter, name, folder)
    writer = Prompts(painter, criteria, profile.evaluate.seed)
    noise = seeds(profile.evaluate.seed, len(records))
    with progress.bar("paint", len(compared) * len(records), "pictures") as report:
        for place, one in enumerate(compared):
            start = _first_missing(work / one.name, len(records), profile.evaluate.batch_images)
            done = place * len(records) + start
            report(done, {})
            with _state(painter, one):
                pictures = sampling.paint(
                    painter,
                    one.prompts(records, writer)[start:],
                    noise[start:],
                    steps=profile.evaluate.steps,
                    guidance=profile.evaluate.guidance,
                    pixels=profile.model.pixels,
                    batch_images=profile.evaluate.batch_images,
                    report=progress.after(done, report),
                )
                for index, picture in enumerate(pictures, start):
                    atomic.write(_file(work, one, index), images.png(picture))


def _state(painter: Denoiser, one: Contestant) -> contextlib.AbstractContextManager[None]:
    if one.negative is None:
        return adapters.use(painter.network, one.adapter)
    return sampling.branches(painter, one.adapter, one.negative_state())


def _first_missing(folder: Path, count: int, batch_images: int) -> int:
    """Index of the first batch that is not whole: batches stay as they would have been."""
    there = 0
    while (folder / f"{there:03}.png").is_file():
        there += 1
    return there if there >= count else there - there % batch_images


def _file(work: Path, one: Contestant, index: int) -> Path:
    return work / one.name / f"{index:03}.png"


def _judge(
    compared: Sequence[Contestant],
    count: int,
    first: tuple[str, FirstJudge],
    second: Network | None,
    criteria: Tree,
    work: Path,
) -> dict[str, Painted]:
    """Judge every picture by what its file holds; keep the judgements."""
    painted = {}
    name, judge = first
    with progress.bar("judge", len(compared) * count, "pictures") as report:
        for place, one in enumerate(compared):
            files = [_file(work, one, index) for index in range(count)]
            pictures = [np.array(images.read(file, _NO_LIMIT)) for file in files]
            hashes = [images.sha256(file) for file in files]
            said = judge(files, progress.after(place * count, report))
            also = [] if second is None else _second_opinion(second, hashes, pictures, criteria)
            judgements = annotations.lines([*said, *also])
            atomic.write(paths.EVALUATE / "judgements" / f"{one.name}.jsonl", judgements)
            painted[one.name] = Painted(
                images=pictures,
                found=negatives.verdicts(said, hashes, name),
                second=negatives.verdicts(also, hashes, starter_features.NAME)
                if second is not None
                else None,
            )
    return painted


_NO_LIMIT = 2**31  # pixels; these pictures are our own


def _experts_opinion(expert: Agent, files: Sequence[Path], report: Report) -> list[Judgement]:
    """What the agent says; it is asked about each picture once, whoever painted it."""
    sights = {
        image: Sight(image, file, None) for file in files for image in [images.sha256(file)]
    }
    failed = expert.consult(list(sights.values()), report)
    if failed:
        raise AnnotationError(
            f"{len(failed)} painted pictures got no usable answer, without which painters "
            f"cannot be compared; the first: {next(iter(failed.values()))}\nThe same command "
            "asks about them again; all other answers are kept"
        )
    opinions = [expert.recall(sight) for sight in sights.values()]
    return [one for opinion in opinions if opinion for one in opinion.judgements]


def _first_opinion(
    annotator: Annotator, files: Sequence[Path], report: Report
) -> list[Judgement]:
    said: list[Judgement] = []
    judge = partial(_judge_file, annotator)
    with parallel.results(judge, files, parallel.cores()) as answers:
        for done, judgements in enumerate(answers, start=1):
            said += judgements
            report(done, {})
    return said


def _judge_file(annotator: Annotator, file: Path) -> list[Judgement]:
    """What the annotator says of one file. Runs in a worker."""
    pixels = np.array(images.read(file, _NO_LIMIT))
    return annotator.judge(images.sha256(file), pixels)


def _second_opinion(
    judge: Network, hashes: Sequence[str], pictures: Sequence[Pixels], criteria: Tree
) -> list[Judgement]:
    known = criteria.leaves()
    return [
        Judgement(
            image=image,
            criterion=path,
            pole=pole,
            annotator=starter_features.NAME,
            confidence=confidence,
        )
        for image, answers in zip(hashes, judge.judge(pictures), strict=True)
        for path, pole, confidence in answers
        if path in known
    ]


def real_paintings(records: Sequence[Record], profile: Profile) -> Real:
    """The test paintings as the painter would see them, and which have no negative."""
    return Real(
        images=[corpus.picture(record.file, profile) for record in records],
        clean=[not record.negative for record in records],
    )


def _keep_pictures(compared: Sequence[Contestant], work: Path) -> None:
    """Copy the pictures to where they are kept; the originals go last, with ``resume.done``."""
    for one in compared:
        target = paths.EVALUATE / "images" / one.name
        with atomic.clear_disk_errors(target):
            shutil.copytree(work / one.name, target, dirs_exist_ok=True)


def _keep_for_later(work: Path) -> None:
    """Keep the last pictures, so that one more metric of them does not paint them again."""
    if paths.PICTURES.is_dir():
        shutil.rmtree(paths.PICTURES)
    with atomic.clear_disk_errors(paths.PICTURES):
        shutil.copytree(work, paths.PICTURES / work.name)
    resume.done(work)
