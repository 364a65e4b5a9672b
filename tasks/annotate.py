"""Stage ``annotate``: judges every picture of ``data/`` by the criteria."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier import atomic
from atelier.annotators.inspection import Inspector
from atelier.annotators.protocol import Answer
from atelier.config.annotation import Adjudication
from atelier.config.profile import Profile
from atelier.criteria import aggregation, annotations, dataset
from atelier.criteria.aggregation import Settled
from atelier.criteria.annotations import Image, Judgement, Quarantined, Rationale
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import Tree, parse
from atelier.errors import AnnotationError
from tasks.annotation import annotator
from tasks.run import paths, progress, resume
from tasks.tracking.mlflow_runs import StageRun

JOURNAL = "journal.jsonl"  # of the pictures that an interrupted run has inspected
_FORMER = ("voices.jsonl", "evidence.jsonl")  # names of outputs of earlier versions


@dataclass(frozen=True)
class Annotated:
    """The whole dataset, in its order."""

    images: list[Image] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    rationales: list[Rationale] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)


def run(profile: Profile, tracked: StageRun) -> None:
    """Judge the pictures, and set aside those that cannot be used, with the reason.

    Reads ``paths.DATA``, ``paths.LABELS`` and the criteria; writes under ``paths.ANNOTATE`` the
    images, the judgements of each annotator (raw), the judgements that count, the rationales,
    the quarantine, a summary and the criteria. An interrupted run goes on from
    ``paths.RESUME``; what a model answered stays in ``paths.ANSWERS``.

    Raises:
        ArtifactError: There is no picture that can be used.
        AnnotationError: There is no judgement of any picture, or the annotator cannot go on.
        ParamsError: ``annotate.recorded`` or ``annotate.adjudication`` names what is absent.
    """
    params = profile.annotate
    criteria = paths.CRITERIA / params.criteria
    tree = parse(criteria)
    judge = annotator.of_data(profile, tree)
    found = corpus_in_force(profile)
    sys.stderr.writelines(f"{note}\n" for note in found.notes)
    work = work_of(judge.inspector)
    with progress.bar("annotate", total=len(found.entries), unit="images") as report:
        pictures = annotator.pictures(found.entries)
        answers = judge.judge_many(pictures, report, work / JOURNAL)
    annotated = _gathered(found, answers.each)
    _refuse_nothing(annotated, params.annotator)
    settled = _settle(annotated, tree, params.adjudication)
    summary = _summary(annotated, settled, tree) | dict(answers.spent)
    if answers.answered_by:
        summary["answered_by"] = dict(sorted(answers.answered_by.items()))
    _write(annotated, settled, summary)
    atomic.write(paths.JUDGED_BY, criteria.read_bytes())
    resume.done(work)
    tracked.metrics({name: summary[name] for name in (*_HEADLINES, *answers.spent)})
    tracked.file(paths.ANNOTATE / "summary.json")
    sys.stdout.writelines(f"{warning}\n" for warning in answers.warnings)


def corpus_in_force(profile: Profile) -> dataset.Corpus:
    """Return the pictures of ``paths.DATA`` and their captions."""
    params = profile.annotate
    asks = params.annotator == "vlm"
    return dataset.find(
        paths.DATA,
        params.captions,
        captionless=asks and params.vlm is not None and params.vlm.write_captions,
    )


def work_of(inspector: Inspector) -> Path:
    """Return the folder that an interrupted run goes on from; it is made if absent."""
    work = resume.folder("annotate", inspector.fingerprint())
    with atomic.clear_disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    return work


def _gathered(found: dataset.Corpus, answers: Sequence[Answer]) -> Annotated:
    """Return what is kept; of files with the same bytes the first."""
    first: dict[str, str] = {}
    gathered = Annotated(quarantined=list(found.quarantined))
    for entry, answer in zip(found.entries, answers, strict=True):
        reason = answer.unanswered
        if answer.image is None or reason is not None:
            gathered.quarantined.append(Quarantined(file=entry.file, reason=str(reason)))
        elif answer.image in first:
            reason = f"has the same bytes as {first[answer.image]}"
            gathered.quarantined.append(Quarantined(file=entry.file, reason=reason))
        else:
            first[answer.image] = entry.file
            gathered.images.append(_image(entry, answer.image, answer))
            gathered.judgements.extend(answer.judgements)
            gathered.rationales.extend(answer.rationales)
    gathered.quarantined.sort(key=lambda one: (one.file, one.reason))
    return gathered


def _image(entry: Entry, image: str, answer: Answer) -> Image:
    return Image(
        image=image,
        file=entry.file,
        width=answer.width,
        height=answer.height,
        caption=answer.caption or entry.caption,
        artwork=entry.artwork,
    )


_HEADLINES = (
    "images",
    "quarantined",
    "judgements",
    "mean_positive_per_image",
    "mean_negative_per_image",
)


def _refuse_nothing(annotated: Annotated, annotator: str) -> None:
    if not annotated.images:
        raise dataset.nothing_usable(paths.DATA, annotated.quarantined)
    if not annotated.judgements:
        raise AnnotationError(
            f"the annotator {annotator!r} said nothing about any of the "
            f"{len(annotated.images)} pictures in {paths.DATA}; are annotate.criteria and "
            "annotate.recorded meant for these pictures?"
        )


def _settle(annotated: Annotated, tree: Tree, rule: Adjudication) -> Settled:
    """What counts, image by image in the order of the tree."""
    rank = {path: rank for rank, path in enumerate(tree.leaves())}
    place = {one.image: place for place, one in enumerate(annotated.images)}
    said = sorted(annotated.judgements, key=lambda one: (place[one.image], rank[one.criterion]))
    return aggregation.settle(said, rule)


def _summary(annotated: Annotated, settled: Settled, tree: Tree) -> dict[str, Any]:
    """Counts of the whole dataset and of each criterion; a coverage is a fraction of images."""
    images = len(annotated.images)
    poles = Counter((one.criterion, one.pole) for one in settled.judgements)
    covered = Counter(one.criterion for one in settled.judgements)
    totals = Counter(one.pole for one in settled.judgements)
    return {
        "domain": tree.domain,
        "version": tree.version,
        "images": images,
        "quarantined": len(annotated.quarantined),
        "judgements": len(settled.judgements),
        "annotators": dict(
            sorted(Counter(one.annotator for one in annotated.judgements).items())
        ),
        "adjudication": dict(settled.outcomes),
        "mean_positive_per_image": totals["positive"] / images,
        "mean_negative_per_image": totals["negative"] / images,
        "criteria": {
            path: {
                "positive": poles[path, "positive"],
                "negative": poles[path, "negative"],
                "abstained": images - covered[path],
                "coverage": covered[path] / images,
            }
            for path in tree.leaves()
        },
    }


def _write(annotated: Annotated, settled: Settled, summary: dict[str, Any]) -> None:
    for name, rows in (
        ("images", annotated.images),
        ("raw_judgements", annotated.judgements),
        ("judgements", settled.judgements),
        ("rationale", annotated.rationales),
        ("quarantine", annotated.quarantined),
    ):
        atomic.write(paths.ANNOTATE / f"{name}.jsonl", annotations.lines(rows))
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    atomic.write(paths.ANNOTATE / "summary.json", text)
    for former in _FORMER:
        (paths.ANNOTATE / former).unlink(missing_ok=True)  # stale beside the new ones
