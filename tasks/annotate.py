"""Stage ``annotate``: every picture of ``data/`` judged by the criteria."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from atelier import atomic, parallel
from atelier.criteria import annotations, annotators, corpus, examination
from atelier.criteria.examination import Examination, Examiner
from atelier.criteria.tree import Tree, parse
from atelier.errors import AnnotationError
from atelier.params import Profile
from tasks import paths, progress, resume
from tasks.tracking import StageRun


def run(profile: Profile, tracked: StageRun) -> None:
    """Judge the pictures, and set aside those that cannot be used, with the reason.

    Reads ``paths.DATA`` and the criteria; writes images, judgements, quarantine, summary and
    the criteria it judged by under ``paths.ANNOTATE``. An interrupted run goes on from
    ``paths.RESUME``.

    Raises:
        ArtifactError: There is no picture that can be used.
        AnnotationError: The annotator said nothing about any picture.
    """
    params = profile.annotate
    criteria = paths.CRITERIA / params.criteria
    tree = parse(criteria)
    recorded = None if params.recorded is None else Path(params.recorded)
    examiner = Examiner(
        data=paths.DATA,
        tree=tree,
        annotator=annotators.load(params.annotator, recorded, tree),
        pixels=profile.model.pixels,
        smallest_side_pixels=params.smallest_side_pixels,
        largest_pixels=params.largest_pixels,
    )
    found = corpus.find(paths.DATA, params.captions)
    work = resume.folder("annotate", examiner.fingerprint())
    with atomic.clear_disk_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    with progress.bar("annotate", total=len(found.entries), unit="images") as report:
        examined = examination.examine(
            found.entries,
            examiner,
            work / "journal.jsonl",
            processes=parallel.cores(),
            report=report,
        )
    examined.quarantined.extend(found.quarantined)
    examined.quarantined.sort(key=lambda one: (one.file, one.reason))
    _refuse_nothing(examined, params.annotator)
    summary = _summary(examined, tree)
    _write(examined, summary)
    atomic.write(paths.JUDGED_BY, criteria.read_bytes())
    resume.done(work)
    tracked.metrics({name: summary[name] for name in _HEADLINES})
    tracked.file(paths.ANNOTATE / "summary.json")


_HEADLINES = (
    "images",
    "quarantined",
    "judgements",
    "mean_positive_per_image",
    "mean_negative_per_image",
)


def _refuse_nothing(examined: Examination, annotator: str) -> None:
    if not examined.images:
        raise corpus.nothing_usable(paths.DATA, examined.quarantined)
    if not examined.judgements:
        raise AnnotationError(
            f"the annotator {annotator!r} said nothing about any of the "
            f"{len(examined.images)} pictures in {paths.DATA}; are annotate.criteria and "
            "annotate.recorded meant for these pictures?"
        )


def _summary(examined: Examination, tree: Tree) -> dict[str, Any]:
    """Counts of the whole corpus and of each criterion; a coverage is a fraction of images."""
    images = len(examined.images)
    poles = Counter((one.criterion, one.pole) for one in examined.judgements)
    covered = Counter(
        criterion
        for criterion, _ in {(one.criterion, one.image) for one in examined.judgements}
    )
    totals = Counter(one.pole for one in examined.judgements)
    return {
        "domain": tree.domain,
        "version": tree.version,
        "images": images,
        "quarantined": len(examined.quarantined),
        "judgements": len(examined.judgements),
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


def _write(examined: Examination, summary: dict[str, Any]) -> None:
    for name, rows in (
        ("images", examined.images),
        ("judgements", examined.judgements),
        ("quarantine", examined.quarantined),
    ):
        atomic.write(paths.ANNOTATE / f"{name}.jsonl", annotations.lines(rows))
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    atomic.write(paths.ANNOTATE / "summary.json", text)
