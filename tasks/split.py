"""Stage ``split``: train, validation and test sets of the judged pictures."""

import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from atelier import atomic, images, parallel
from atelier.config.profile import Profile
from atelier.criteria import annotations, near_duplicates, splits
from atelier.criteria.annotations import Image, Judgement, Record
from atelier.criteria.near_duplicates import Hashes, Labels
from atelier.criteria.splits import Balance, Part
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
    images_file = paths.ANNOTATE / "images.jsonl"
    named = [(row.file, row.artwork) for row in annotations.stream(images_file, Image)]
    files, artworks = [file for file, _ in named], [artwork for _, artwork in named]
    look = _look(files, profile)
    labels = splits.groups(artworks, look)
    assigned = splits.assign(artworks, labels, profile.split)
    rows = annotations.stream(images_file, Image)
    records = splits.records(
        ((row.image, row.file, row.caption) for row in rows),
        annotations.stream(paths.ANNOTATE / "judgements.jsonl", Judgement),
    )
    counts, balance, left_out = _write(records, assigned, profile)
    summary = {
        "images": counts,
        "near_duplicates": None
        if look is None
        else {
            **_near(look, files),
            "left_out": len(left_out),
            "examples_left_out": left_out[:10],
        },
        "positive_share": balance.shares(),
    }
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    atomic.write(paths.SPLIT / "summary.json", text)
    tracked.metrics(_headlines(summary))
    tracked.file(paths.SPLIT / "summary.json")


def _write(
    records: Iterable[Record], assigned: Sequence[Part | None], profile: Profile
) -> tuple[dict[Part, int], Balance, list[str]]:
    """Write each record to its part; return their counts, and the files that are left out."""
    counts: dict[Part, int] = dict.fromkeys(splits.PARTS, 0)
    every, balance, left_out = 0, Balance(), []
    with contextlib.ExitStack() as stack:
        written = {
            part: stack.enter_context(atomic.replacing(paths.SPLIT / f"{part}.jsonl"))
            for part in splits.PARTS
        }
        for record, part in zip(records, assigned, strict=True):
            every += part == "train"
            if part is None:
                left_out.append(record.file)
            elif part != "train" or splits.trains(record.image, profile.split):
                counts[part] += 1
                balance.add(part, record)
                written[part].write(annotations.line(record).encode())
        splits.refuse_nothing_to_train(every, counts["train"], profile.split)
    return counts, balance, left_out


def _look(files: Sequence[str], profile: Profile) -> Labels | None:
    """Groups of pictures that look alike, or None if the profile does not ask for them."""
    bits = profile.split.near_duplicate_bits
    if bits is None:
        return None
    sys.stdout.write(f"split: {near_duplicates.meaning(bits)}\n")
    hash_of = partial(_hash, paths.DATA, profile.annotate.largest_pixels)
    hashes = np.empty((len(files), near_duplicates.VIEWS, 4), np.uint64)
    with (
        progress.bar("split", total=len(files), unit="images") as report,
        parallel.results(hash_of, files, parallel.cores()) as results,
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


def _near(look: Labels, files: Sequence[str]) -> dict[str, Any]:
    """How many pictures have a near-duplicate, and the first few groups by name."""
    groups: dict[int, list[str]] = {}
    for label, file in zip(look.tolist(), files, strict=True):
        groups.setdefault(label, []).append(file)
    several = [alike for alike in groups.values() if len(alike) > 1]
    return {
        "groups": len(several),
        "images": sum(map(len, several)),
        "largest": max(map(len, several), default=0),
        "examples": [alike[:5] for alike in several[:10]],
    }


def _headlines(summary: dict[str, Any]) -> dict[str, float]:
    values = {f"images_{part}": float(count) for part, count in summary["images"].items()}
    if summary["near_duplicates"] is not None:
        values["near_duplicate_groups"] = float(summary["near_duplicates"]["groups"])
        values["images_left_out"] = float(summary["near_duplicates"]["left_out"])
    return values
