"""Deterministic split into training, validation and test parts, hashed by artwork.

An artwork's place in [0, 1) comes from a hash of its name alone, and so does its part: no
picture that comes or goes moves another one, and a fresh clone has the same split. Another
salt gives another split.

Pictures that look alike may be copies of one artwork under several names. They stay with the
names' parts, unless these differ: then the copies in the later parts (training comes first,
then validation, then test) are *left out*. A picture that was trained on is therefore never
tested on, by its own file or by a copy, however often pictures are added; what a new copy can
do is to leave an older one out of a later part.
"""

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from atelier.config.annotation import SplitParams
from atelier.criteria.annotations import Judgement, Record
from atelier.criteria.near_duplicates import Labels, connect, first_equal
from atelier.criteria.tree import Pole
from atelier.errors import ArtifactError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

_SURE = 0.05  # largest chance of an empty part that counts as enough images


def groups(artworks: Sequence[str], look: Labels | None) -> Labels:
    """Label the images of one artwork, of copies of it, and of copies of those, ``[N]``.

    Args:
        artworks: Name of each image's artwork.
        look: Near-duplicates, equal labels for equal groups; None does not compare pictures.
    """
    count = np.arange(len(artworks))
    labels = connect(count, count, first_equal(artworks))
    return labels if look is None else connect(labels, count, first_equal(look.tolist()))


def place(artwork: str, salt: str) -> float:
    """Return where in [0, 1) the artwork stands, by its name alone."""
    digest = hashlib.blake2b(f"{salt}\0{artwork}".encode(), digest_size=16).digest()
    # 53 bits fill a double; of 64 the largest would round up to 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign(artworks: Sequence[str], labels: Labels, params: SplitParams) -> list[Part | None]:
    """Return the part of each image by its artwork's name; None leaves a copy out.

    Args:
        artworks: Name of each image's artwork.
        labels: From ``groups``.
        params: Shares and salt.

    Raises:
        ArtifactError: A part that should have images has none; says how many it takes.
    """
    own = [PARTS.index(_part(place(artwork, params.salt), params)) for artwork in artworks]
    first: dict[int, int] = {}  # of each group, the earliest part of its images
    for label, part in zip(labels.tolist(), own, strict=True):
        first[label] = min(first.get(label, part), part)
    parts = [
        PARTS[part] if part == first[label] else None
        for label, part in zip(labels.tolist(), own, strict=True)
    ]
    _refuse_empty(parts, len(first), params)
    return parts


def records(
    rows: Iterable[tuple[str, str, str]], judgements: Iterable[Judgement]
) -> Iterator[Record]:
    """Join images ``(hash, file, caption)`` and judgements into what training reads.

    Of the judgements the words alone are held, each once; of the images one at a time.

    Raises:
        ArtifactError: Two judgements answer one question: they were not aggregated.
    """
    said: dict[bytes, dict[str, tuple[Pole, float]]] = {}
    for one in judgements:
        answers = said.setdefault(bytes.fromhex(one.image), {})
        if one.criterion in answers:
            raise ArtifactError(
                f"two judgements stand on {one.criterion} of picture {one.image[:12]}…, which "
                "annotate would have settled; run `dvc repro annotate`"
            )
        answers[sys.intern(one.criterion)] = one.pole, one.confidence
    for image, file, caption in rows:
        answers = said.get(bytes.fromhex(image), {})
        yield Record(
            image=image,
            file=file,
            caption=caption,
            positive=[path for path, (pole, _) in answers.items() if pole == "positive"],
            negative=[path for path, (pole, _) in answers.items() if pole == "negative"],
            confidence={path: confidence for path, (_, confidence) in answers.items()},
        )


def trains(image: str, params: SplitParams) -> bool:
    """Say whether a picture of the training part is within ``train_share``.

    A larger share holds a smaller one.
    """
    return place(image, f"{params.salt} train") < params.train_share


def refuse_nothing_to_train(every: int, kept: int, params: SplitParams) -> None:
    """Refuse a ``train_share`` that leaves nothing of a training part.

    Raises:
        ArtifactError: It does.
    """
    if every and not kept:
        raise ArtifactError(
            f"split.train_share {params.train_share:g} leaves none of {every} images to "
            "train on; raise it"
        )


class Balance:
    """Counts the active poles of each criterion in each part."""

    def __init__(self) -> None:
        self._good: dict[Part, Counter[str]] = {part: Counter() for part in PARTS}
        self._bad: dict[Part, Counter[str]] = {part: Counter() for part in PARTS}

    def add(self, part: Part, record: Record) -> None:
        """Count a record of a part."""
        self._good[part].update(record.positive)
        self._bad[part].update(record.negative)

    def shares(self) -> dict[str, dict[str, float | None]]:
        """Return by criterion, then part, the share of good poles among the active, or None."""
        every = [*self._good.values(), *self._bad.values()]
        criteria = sorted({path for counts in every for path in counts})
        return {
            path: {
                part: _share(self._good[part][path], self._bad[part][path]) for part in PARTS
            }
            for path in criteria
        }


def _part(place: float, params: SplitParams) -> Part:
    if place < params.train:
        return "train"
    return "validation" if place < 1 - params.test else "test"


def _refuse_empty(parts: Sequence[Part | None], groups: int, params: SplitParams) -> None:
    shares: dict[Part, float] = {part: getattr(params, part) for part in PARTS}
    empty = [part for part in PARTS if shares[part] > 0 and part not in parts]
    if not empty:
        return
    least = min(shares[part] for part in empty)
    enough = math.ceil(math.log(_SURE) / math.log1p(-least)) if least < 1 else 1
    raise ArtifactError(
        f"the split leaves {' and '.join(empty)} empty: {len(parts)} images of {groups} "
        f"different artworks are too few for a share of {least:g}; about {enough} different "
        "ones are needed. Add images, raise the share in params under split, or try another "
        "split.salt."
    )


def _share(good: int, bad: int) -> float | None:
    return good / (good + bad) if good + bad else None
