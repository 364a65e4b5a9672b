"""Stage ``split``: train, validation and test sets of the judged pictures."""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atelier import atomic, images, parallel
from atelier.config.profile import Profile
from atelier.criteria import annotations, near_duplicates, splits
from atelier.criteria.annotations import Image, Record
from atelier.criteria.near_duplicates import Hashes, Labels
from atelier.criteria.splits import Balance, Part
from atelier.criteria.stored.by_image import Judgements
from atelier.errors import ArtifactError, ImageError
from atelier.on_disk import Lazily, Listed
from tasks.run import paths, progress
from tasks.tracking.mlflow_runs import StageRun

_EXAMPLES = 10  # of near-duplicates, and of those that are left out


class _Named(NamedTuple):
    file: str
    artwork: str


class _Views(NamedTuple):
    content: bytes  # hashes of a picture's views


class _Hashes:
    """Hashes on the disk, of which those of a few pictures are read."""

    def __init__(self, views: Listed[_Views]) -> None:
        self._views = views

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, rows: slice) -> Hashes:
        content = b"".join(one.content for one in self._views[rows])
        return np.frombuffer(content, np.uint64).reshape(-1, near_duplicates.VIEWS, 4)


def run(profile: Profile, tracked: StageRun) -> None:
    """Part the images by a hash of their artworks; leave copies out of later parts.

    Reads ``paths.ANNOTATE``, and the pictures where near-duplicates are looked for; writes
    a JSONL of records for each part, and a summary, under ``paths.SPLIT``.

    Raises:
        ArtifactError: An input is absent, or a part would be empty.
    """
    every = Listed(_Named, (_Named(row.file, row.artwork) for row in _rows()))
    files = Lazily(every, lambda one: one.file)
    artworks = Lazily(every, lambda one: one.artwork)
    look = _look(files, profile)
    labels = splits.groups(artworks, look)
    assigned = splits.assign(artworks, labels, profile.split)
    records = splits.records(
        ((row.image, row.file, row.caption) for row in _rows()),
        Judgements(paths.ANNOTATE / "judgements.jsonl"),
    )
    counts, balance, left_out = _write(records, assigned, profile)
    summary = {
        "images": counts,
        "near_duplicates": None
        if look is None
        else {
            **_near(look, files),
            "left_out": assigned.count(None),
            "examples_left_out": left_out,
        },
        "positive_share": balance.shares(),
    }
    text = json.dumps(summary, ensure_ascii=False, indent=2) + "\n"
    atomic.write(paths.SPLIT / "summary.json", text)
    tracked.metrics(_headlines(summary))
    tracked.file(paths.SPLIT / "summary.json")


def _rows() -> Iterator[Image]:
    return annotations.stream(paths.ANNOTATE / "images.jsonl", Image)


def _write(
    records: Iterable[Record], assigned: Sequence[Part | None], profile: Profile
) -> tuple[dict[Part, int], Balance, list[str]]:
    """Write each record to its part; return their counts, and a few files left out."""
    counts: dict[Part, int] = dict.fromkeys(splits.PARTS, 0)
    every, balance = 0, Balance()
    left_out: list[str] = []
    with contextlib.ExitStack() as stack:
        written = {
            part: stack.enter_context(atomic.replacing(paths.SPLIT / f"{part}.jsonl"))
            for part in splits.PARTS
        }
        for record, part in zip(records, assigned, strict=True):
            every += part == "train"
            if part is None:
                left_out += [record.file] * (len(left_out) < _EXAMPLES)
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
    hashes = Listed(_Views)
    with (
        progress.bar("split", total=len(files), unit="images") as report,
        parallel.results(hash_of, files, parallel.cores()) as results,
    ):

        def views() -> Iterator[_Views]:
            for done, one in enumerate(results, start=1):
                report(done, {})
                yield _Views(one.tobytes())

        hashes.extend(views())
    return near_duplicates.near_duplicates(_Hashes(hashes), bits)


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
    sizes = np.bincount(look)
    several = np.flatnonzero(sizes > 1)  # a label is the index of the group's first picture
    groups = (np.flatnonzero(look == label)[:5] for label in several[:_EXAMPLES])
    return {
        "groups": len(several),
        "images": int(sizes[several].sum()),
        "largest": int(sizes[several].max(initial=0)),
        "examples": [[files[place] for place in places.tolist()] for places in groups],
    }


def _headlines(summary: dict[str, Any]) -> dict[str, float]:
    values = {f"images_{part}": float(count) for part, count in summary["images"].items()}
    if summary["near_duplicates"] is not None:
        values["near_duplicate_groups"] = float(summary["near_duplicates"]["groups"])
        values["images_left_out"] = float(summary["near_duplicates"]["left_out"])
    return values
