"""Stage ``annotate``: judges every picture of ``data/`` by the criteria."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from atelier import atomic
from atelier.annotators.inspection import Inspector
from atelier.annotators.protocol import Answer
from atelier.config.annotation import Adjudication
from atelier.config.profile import Profile
from atelier.criteria import aggregation, annotations, dataset
from atelier.criteria.aggregation import OUTCOMES
from atelier.criteria.annotations import Image, Quarantined
from atelier.criteria.dataset import Entry
from atelier.criteria.stored.by_image import Places
from atelier.criteria.tree import Tree, parse
from atelier.errors import AnnotationError
from tasks.annotation import annotator
from tasks.run import paths, progress, resume
from tasks.tracking.mlflow_runs import StageRun

JOURNAL = "journal.jsonl"  # of the pictures that an interrupted run has inspected
_FORMER = ("voices.jsonl", "evidence.jsonl")  # names of outputs of earlier versions


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
    with _Written(tree, params.adjudication) as written:
        _gather(found, answers.each, written)
        _refuse_nothing(written, params.annotator)
    summary = written.summary() | dict(answers.spent)
    if answers.answered_by:
        summary["answered_by"] = dict(sorted(answers.answered_by.items()))
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    atomic.write(paths.ANNOTATE / "summary.json", text)
    for former in _FORMER:
        (paths.ANNOTATE / former).unlink(missing_ok=True)  # stale beside the new ones
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


def _gather(found: dataset.Corpus, answers: Sequence[Answer], written: "_Written") -> None:
    """Write what is kept; of files with the same bytes the first."""
    first = Places()
    for place, (entry, answer) in enumerate(zip(found.entries, answers, strict=True)):
        reason = answer.unanswered
        if answer.image is None or reason is not None:
            written.set_aside(Quarantined(file=entry.file, reason=str(reason)))
            continue
        same = (one for one in first.of(answer.image) if answers[one].image == answer.image)
        original = next(same, None)
        if original is not None:
            reason = f"has the same bytes as {found.entries[original].file}"
            written.set_aside(Quarantined(file=entry.file, reason=reason))
        else:
            first.add(answer.image, place)
            written.keep(_image(entry, answer.image, answer), answer)
    for one in found.quarantined:
        written.set_aside(one)


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


class _Written:
    """Writes the dataset, in its order, picture by picture, and counts what it writes.

    Its files are put in place together at the end; nothing is, where an error ends it.
    """

    def __init__(self, tree: Tree, rule: Adjudication) -> None:
        self._tree, self._rule = tree, rule
        self._rank = {path: rank for rank, path in enumerate(tree.leaves())}
        self._files: dict[str, BinaryIO] = {}
        self._closing = contextlib.ExitStack()
        self.images = self.judgements = 0  # judgements of all annotators
        self.quarantined: list[Quarantined] = []
        self._annotators = Counter[str]()
        self._outcomes = Counter[str](dict.fromkeys(OUTCOMES, 0))
        self._poles = Counter[tuple[str, str]]()

    def __enter__(self) -> "_Written":
        for name in ("images", "raw_judgements", "judgements", "rationale"):
            file = atomic.replacing(paths.ANNOTATE / f"{name}.jsonl")
            self._files[name] = self._closing.enter_context(file)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.quarantined.sort(key=lambda one: (one.file, one.reason))
            text = annotations.lines(self.quarantined)
            atomic.write(paths.ANNOTATE / "quarantine.jsonl", text)
        self._closing.__exit__(kind, error, trace)

    def set_aside(self, one: Quarantined) -> None:
        """Take a file that is not used."""
        self.quarantined.append(one)

    def keep(self, image: Image, answer: Answer) -> None:
        """Write a picture, what was said of it, and what counts, in the order of the tree."""
        self.images += 1
        self.judgements += len(answer.judgements)
        self._annotators.update(one.annotator for one in answer.judgements)
        said = sorted(answer.judgements, key=lambda one: self._rank[one.criterion])
        settled = aggregation.settle(said, self._rule)
        self._outcomes.update(settled.outcomes)
        self._poles.update((one.criterion, one.pole) for one in settled.judgements)
        for name, rows in (
            ("images", [image]),
            ("raw_judgements", answer.judgements),
            ("judgements", settled.judgements),
            ("rationale", answer.rationales),
        ):
            self._files[name].write(annotations.lines(rows).encode())

    def summary(self) -> dict[str, Any]:
        """Return counts of all and of each criterion; coverages are shares of images."""
        poles, images = self._poles, self.images
        totals = Counter[str]()
        covered = Counter[str]()
        for (path, pole), count in poles.items():
            totals[pole] += count
            covered[path] += count
        return {
            "domain": self._tree.domain,
            "version": self._tree.version,
            "images": images,
            "quarantined": len(self.quarantined),
            "judgements": totals.total(),
            "annotators": dict(sorted(self._annotators.items())),
            "adjudication": dict(self._outcomes),
            "mean_positive_per_image": totals["positive"] / images,
            "mean_negative_per_image": totals["negative"] / images,
            "criteria": {
                path: {
                    "positive": poles[path, "positive"],
                    "negative": poles[path, "negative"],
                    "abstained": images - covered[path],
                    "coverage": covered[path] / images,
                }
                for path in self._tree.leaves()
            },
        }


def _refuse_nothing(written: _Written, annotator: str) -> None:
    if not written.images:
        every = sorted(written.quarantined, key=lambda one: (one.file, one.reason))
        raise dataset.nothing_usable(paths.DATA, every)
    if not written.judgements:
        raise AnnotationError(
            f"the annotator {annotator!r} said nothing about any of the "
            f"{written.images} pictures in {paths.DATA}; are annotate.criteria and "
            "annotate.recorded meant for these pictures?"
        )
