"""Stage ``evaluate``: base, θ1 and each θ paint the test captions, and are compared."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atelier import atomic, images
from atelier.annotators.protocol import Annotator
from atelier.config.profile import Profile
from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Judgement, Record
from atelier.criteria.tree import Tree
from atelier.images import Pixels
from atelier.metrics import comparison, negatives
from atelier.metrics.comparison import Painted, Real
from atelier.starter import feature_network
from atelier.starter.feature_network import Network
from tasks.annotation import painted_pictures
from tasks.commands import features, table
from tasks.evaluation import candidates, generation, results, scoring
from tasks.evaluation.generation import GenerationJob
from tasks.run import paths, progress, resume
from tasks.tracking import registry
from tasks.tracking.mlflow_runs import StageRun
from tasks.training import encoded_dataset


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
    judge = painted_pictures.annotator(profile, criteria)
    entries = scoring.survey(profile)
    extractor, second = scoring.extractor(profile, entries), _second_judge(profile)
    asked = generation.of(profile)
    compared = asked.compared
    generation.take_kept(asked)
    generation.paint_missing(asked)
    painted = _judge(asked, judge, second)
    wanted = [record.caption for record in asked.records]
    test = annotations.read(generation.part_examined(profile), Record)
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
        reference=candidates.BASE,
        resamples=profile.report.bootstrap,
        seed=profile.generate.seed,
    )
    _keep_pictures(asked)
    results.write(
        results.Outcome(
            compared,
            painted,
            measured_results,
            wanted,
            criteria,
            entries,
            annotator=judge.name,
            second=None if second is None else feature_network.NAME,
            extractor=None if extractor is None else extractor.name,
            unseen=scoring.unseen(real, extractor, len(wanted), profile),
            pairs=scoring.closest(measured_results, profile),
        ),
        profile,
        tracked,
    )
    _keep_for_later(asked.work)
    registry.run(evaluating=True)
    table.run()


def _second_judge(profile: Profile) -> Network | None:
    """The independent judge, which knows the starter's drawings and nothing else."""
    if profile.evaluate.second_judge is None:
        return None
    return feature_network.read(features.FOLDER)


def _judge(
    asked: GenerationJob, judge: Annotator, second: Network | None
) -> dict[str, Painted]:
    """Judge every picture by what its file holds; keep the judgements."""
    painted = {}
    count = len(asked.records)
    with progress.bar("judge", len(asked.compared) * count, "pictures") as report:
        for place, one in enumerate(asked.compared):
            files = [asked.file(one.name, index) for index in range(count)]
            said = painted_pictures.judge(judge, files, progress.after(place * count, report))
            seen = [np.array(images.read(file, _NO_LIMIT)) for file in files]
            hashes = [images.sha256(file) for file in files]
            also = (
                [] if second is None else _second_opinion(second, hashes, seen, asked.criteria)
            )
            judgements = annotations.lines([*said, *also])
            atomic.write(paths.EVALUATE / "judgements" / f"{one.name}.jsonl", judgements)
            painted[one.name] = Painted(
                images=seen,
                found=negatives.verdicts(said, hashes, judge.name),
                second=negatives.verdicts(also, hashes, feature_network.NAME)
                if second is not None
                else None,
            )
    return painted


_NO_LIMIT = 2**31  # pixels; these pictures are our own


def _second_opinion(
    judge: Network, hashes: Sequence[str], pictures: Sequence[Pixels], criteria: Tree
) -> list[Judgement]:
    known = criteria.leaves()
    return [
        Judgement(
            image=image,
            criterion=path,
            pole=pole,
            annotator=feature_network.NAME,
            confidence=confidence,
        )
        for image, answers in zip(hashes, judge.judge(pictures), strict=True)
        for path, pole, confidence in answers
        if path in known
    ]


def real_paintings(records: Sequence[Record], profile: Profile) -> Real:
    """The test paintings as the painter would see them, and which have no negative."""
    return Real(
        images=[encoded_dataset.picture(record.file, profile) for record in records],
        clean=[not record.negative for record in records],
    )


def _keep_pictures(asked: GenerationJob) -> None:
    """Copy the pictures to where they are kept; the originals go last, with ``resume.done``."""
    for one in asked.compared:
        atomic.copy_tree(asked.work / one.name, paths.EVALUATE / "images" / one.name)


def _keep_for_later(work: Path) -> None:
    """Keep the last pictures, so that one more metric of them does not paint them again."""
    if paths.PICTURES.is_dir():
        shutil.rmtree(paths.PICTURES)
    atomic.copy_tree(work, paths.PICTURES / work.name)
    resume.done(work)
