"""Stage ``annotate``: every picture of ``data/`` judged by the criteria."""

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atelier import annotators, atomic, parallel
from atelier.annotators import Annotator, annotate_images, measured
from atelier.annotators.annotate_images import Examination, ImageAnnotator
from atelier.annotators.recorded import Recorded
from atelier.annotators.vlm import agent as vlm
from atelier.annotators.vlm.agent import Agent, Rationale
from atelier.config.annotation import Adjudication
from atelier.config.profile import Profile
from atelier.criteria import aggregation, annotations, dataset
from atelier.criteria.aggregation import Settled
from atelier.criteria.annotations import Judgement, Quarantined
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import Tree, parse
from atelier.errors import AnnotationError, ParamsError
from tasks.annotation import agent
from tasks.run import paths, progress, resume
from tasks.tracking.mlflow_runs import StageRun


def run(profile: Profile, tracked: StageRun) -> None:
    """Judge the pictures, and set aside those that cannot be used, with the reason.

    Reads ``paths.DATA``, ``paths.LABELS`` and the criteria; writes images, what each annotator
    said (voices), what of it counts (judgements), evidence, quarantine, summary and the
    criteria it judged by under ``paths.ANNOTATE``. An interrupted run goes on
    from ``paths.RESUME``; what an agent answered is in ``paths.ANSWERS`` for ever.

    Raises:
        ArtifactError: There is no picture that can be used.
        AnnotationError: The annotators said nothing about any picture, or cannot go on.
        ParamsError: ``annotate.recorded`` or ``annotate.adjudication`` names what is not there.
    """
    params = profile.annotate
    criteria = paths.CRITERIA / params.criteria
    tree = parse(criteria)
    asks = params.annotator == "vlm"
    examiner = examiner_in_force(profile, tree)
    found = corpus_in_force(profile)
    sys.stderr.writelines(f"{note}\n" for note in found.notes)
    work = work_of(examiner)
    examined = _examine(found.entries, examiner, work, "look" if asks else "annotate")
    if params.annotator == "measured":
        examined = annotate_images.within_captions(examined, tree)
    evidence: list[Rationale] = []
    said: dict[str, float] = {}
    if asks:
        with agent.opened(tree, params.vlm, params.largest_pixels) as expert:
            examined, evidence = _consult(expert, examined, found.entries)
            said = _spending(expert)
    examined.quarantined.extend(found.quarantined)
    examined.quarantined.sort(key=lambda one: (one.file, one.reason))
    _refuse_nothing(examined, params.annotator)
    settled = _settle(examined, tree, params.adjudication)
    summary = _summary(examined, settled, tree) | said
    _write(examined, settled, evidence, summary)
    atomic.write(paths.JUDGED_BY, criteria.read_bytes())
    resume.done(work)
    tracked.metrics({name: summary[name] for name in (*_HEADLINES, *said)})
    tracked.file(paths.ANNOTATE / "summary.json")


JOURNAL = "journal.jsonl"  # in the folder of the work: what is judged already


def examiner_in_force(profile: Profile, tree: Tree) -> ImageAnnotator:
    """Return what is done to each picture."""
    return ImageAnnotator(
        data=paths.DATA,
        tree=tree,
        annotator=_annotator(profile, tree),
        pixels=profile.model.pixels,
        smallest_side_pixels=profile.annotate.smallest_side_pixels,
        largest_pixels=profile.annotate.largest_pixels,
    )


def corpus_in_force(profile: Profile) -> dataset.Corpus:
    """Return the pictures of ``paths.DATA`` and their captions."""
    params = profile.annotate
    asks = params.annotator == "vlm"
    return dataset.find(
        paths.DATA,
        params.captions,
        captionless=asks and params.vlm is not None and params.vlm.write_captions,
    )


def work_of(examiner: ImageAnnotator) -> Path:
    """Return the folder that an interrupted run goes on from; it is made if absent."""
    work = resume.folder("annotate", examiner.fingerprint())
    with atomic.clear_disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    return work


def _annotator(profile: Profile, tree: Tree) -> Annotator:
    """Everybody who judges a picture at once, in one."""
    params = profile.annotate
    recordings = [Recorded.read(_label_file(name), tree) for name in params.recorded or ()]
    names = {name for one in recordings for name in one.names}
    judges: list[Annotator] = list(recordings)
    if params.annotator != "recorded":
        judges.append(annotators.load(params.annotator, tree))
    if params.annotator == "measured":
        names.add(measured.NAME)
    if params.vlm is not None and params.annotator == "vlm":
        names.add(vlm.name(params.vlm))
    aggregation.refuse_idle(params.adjudication, names)
    return judges[0] if len(judges) == 1 else annotators.Several(tuple(judges))


def _label_file(name: str) -> Path:
    """A file of judgements; elsewhere DVC would not see it change, and rerun nothing."""
    path = Path(os.path.normpath(name))
    if path.is_absolute() or path.parts[:1] != paths.LABELS.parts:
        raise ParamsError(
            f"annotate.recorded should name files inside {paths.LABELS}/, whose changes DVC "
            f"sees, is {name!r}; move it there"
        )
    return path


def _examine(
    entries: Sequence[Entry], examiner: ImageAnnotator, work: Path, title: str
) -> Examination:
    with progress.bar(title, total=len(entries), unit="images") as report:
        return annotate_images.examine(
            entries,
            examiner,
            work / JOURNAL,
            processes=parallel.cores(),
            report=report,
        )


def _consult(
    expert: Agent, seen: Examination, entries: Sequence[Entry]
) -> tuple[Examination, list[Rationale]]:
    """Add to the pictures what the agent says of them; set aside those it cannot judge."""
    by_file = {entry.file: entry for entry in entries}
    sights = [agent.sight(one.image, by_file[one.file]) for one in seen.images]
    with progress.bar("annotate", total=len(sights), unit="images") as report:
        failed = expert.consult(sights, report)
    judged, evidence = Examination([], [], list(seen.quarantined)), []
    before: dict[str, list[Judgement]] = {}
    for one in seen.judgements:
        before.setdefault(one.image, []).append(one)
    for image, sight in zip(seen.images, sights, strict=True):
        opinion = expert.recall(sight)
        if opinion is None:
            reason = failed[image.image]
            judged.quarantined.append(Quarantined(file=image.file, reason=reason))
            continue
        judged.images.append(
            image.model_copy(update={"caption": opinion.caption or image.caption})
        )
        judged.judgements.extend(before.get(image.image, []) + opinion.judgements)
        evidence.extend(opinion.evidence)
    return judged, evidence


def _spending(expert: Agent) -> dict[str, float]:
    """What the answers that stand behind the judgements cost, former runs included."""
    spent = expert.spent()
    return {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "cost": spent.price,
    }


_HEADLINES = (
    "images",
    "quarantined",
    "judgements",
    "mean_positive_per_image",
    "mean_negative_per_image",
)


def _refuse_nothing(examined: Examination, annotator: str) -> None:
    if not examined.images:
        raise dataset.nothing_usable(paths.DATA, examined.quarantined)
    if not examined.judgements:
        raise AnnotationError(
            f"the annotator {annotator!r} said nothing about any of the "
            f"{len(examined.images)} pictures in {paths.DATA}; are annotate.criteria and "
            "annotate.recorded meant for these pictures?"
        )


def _settle(examined: Examination, tree: Tree, rule: Adjudication) -> Settled:
    """What counts, image by image in the order of the tree."""
    rank = {path: rank for rank, path in enumerate(tree.leaves())}
    place = {one.image: place for place, one in enumerate(examined.images)}
    said = sorted(examined.judgements, key=lambda one: (place[one.image], rank[one.criterion]))
    return aggregation.settle(said, rule)


def _summary(examined: Examination, settled: Settled, tree: Tree) -> dict[str, Any]:
    """Counts of the whole corpus and of each criterion; a coverage is a fraction of images."""
    images = len(examined.images)
    poles = Counter((one.criterion, one.pole) for one in settled.judgements)
    covered = Counter(one.criterion for one in settled.judgements)
    totals = Counter(one.pole for one in settled.judgements)
    return {
        "domain": tree.domain,
        "version": tree.version,
        "images": images,
        "quarantined": len(examined.quarantined),
        "judgements": len(settled.judgements),
        "annotators": dict(
            sorted(Counter(one.annotator for one in examined.judgements).items())
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


def _write(
    examined: Examination,
    settled: Settled,
    evidence: Sequence[Rationale],
    summary: dict[str, Any],
) -> None:
    for name, rows in (
        ("images", examined.images),
        ("voices", examined.judgements),
        ("judgements", settled.judgements),
        ("evidence", evidence),
        ("quarantine", examined.quarantined),
    ):
        atomic.write(paths.ANNOTATE / f"{name}.jsonl", annotations.lines(rows))
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    atomic.write(paths.ANNOTATE / "summary.json", text)
