"""Stage ``split``: train, validation and test sets of the judged pictures."""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from atelier import atomic, images, parallel
from atelier.config.profile import Profile
from atelier.criteria import annotations, near_duplicates, splits
from atelier.criteria.annotations import Image, Judgement, Record
from atelier.criteria.near_duplicates import Hashes, Labels
from atelier.criteria.splits import Part
from atelier.errors import ArtifactError, ImageError
from tasks.run import paths, progress
from tasks.tracking.mlflow_runs import StageRun


def run(profile: Profile, tracked: StageRun) -> None:
    """Part the images by a hash of their artworks; leave copies out of later parts.

    Reads ``paths.ANNOTATE``, and the pictures where near-duplicates are looked for; writes
    a JSONL of records for each part, and a summary, under ``paths.SPLIT``.

    Raises:
        ArtifactError: An input is absent, or a part would be empty.
    """
    rows = annotations.read(paths.ANNOTATE / "images.jsonl", Image)
    judgements = annotations.read(paths.ANNOTATE / "judgements.jsonl", Judgement)
    look = _look(rows, profile)
    artworks = [row.artwork for row in rows]
    labels = splits.groups(artworks, look)
    assigned = splits.assign(artworks, labels, profile.split)
    records = splits.records(((row.image, row.file, row.caption) for row in rows), judgements)
    parts: dict[Part, list[Record]] = {part: [] for part in splits.PARTS}
    left_out = []
    for record, part in zip(records, assigned, strict=True):
        if part is None:
            left_out.append(record.file)
        else:
            parts[part].append(record)
    parts["train"] = splits.thinned(parts["train"], profile.split)
    for part in splits.PARTS:
        atomic.write(paths.SPLIT / f"{part}.jsonl", annotations.lines(parts[part]))
    summary = {
        "images": {part: len(parts[part]) for part in splits.PARTS},
        "near_duplicates": None
        if look is None
        else {
            **_near(look, rows),
            "left_out": len(left_out),
            "examples_left_out": left_out[:10],
        },
        "positive_share": splits.balance(parts),
    }
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    atomic.write(paths.SPLIT / "summary.json", text)
    tracked.metrics(_headlines(summary))
    tracked.file(paths.SPLIT / "summary.json")


def _look(rows: Sequence[Image], profile: Profile) -> Labels | None:
    """Groups of pictures that look alike, or None if the profile does not ask for them."""
    bits = profile.split.near_duplicate_bits
    if bits is None:
        return None
    sys.stdout.write(f"split: {near_duplicates.meaning(bits)}\n")
    hash_of = partial(_hash, paths.DATA, profile.annotate.largest_pixels)
    hashes = np.empty((len(rows), near_duplicates.VIEWS, 4), np.uint64)
    with (
        progress.bar("split", total=len(rows), unit="images") as report,
        parallel.results(hash_of, [row.file for row in rows], parallel.cores()) as results,
    ):
        for index, one in enumerate(results):
            hashes[index] = one
            report(index + 1, {})
    return near_duplicates.near_duplicates(hashes, bits)


def _hash(data: Path, largest_pixels: int, file: str) -> Hashes:
    """The perceptual hashes of one picture's views. Runs in a worker."""
    try:
        return near_duplicates.views(images.read(data / file, largest_pixels))
    except ImageError as error:
        raise ArtifactError(
            f"{data / file} was judged and is now {error}; run `dvc repro annotate`"
        ) from None


def _near(look: Labels, rows: Sequence[Image]) -> dict[str, Any]:
    """How many pictures have a near-duplicate, and the first few groups by name."""
    groups: dict[int, list[str]] = {}
    for label, row in zip(look.tolist(), rows, strict=True):
        groups.setdefault(label, []).append(row.file)
    several = [files for files in groups.values() if len(files) > 1]
    return {
        "groups": len(several),
        "images": sum(map(len, several)),
        "largest": max(map(len, several), default=0),
        "examples": [files[:5] for files in several[:10]],
    }


def _headlines(summary: dict[str, Any]) -> dict[str, float]:
    values = {f"images_{part}": float(count) for part, count in summary["images"].items()}
    if summary["near_duplicates"] is not None:
        values["near_duplicate_groups"] = float(summary["near_duplicates"]["groups"])
        values["images_left_out"] = float(summary["near_duplicates"]["left_out"])
    return values
