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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from atelier.config.annotation import SplitParams
from atelier.criteria.annotations import Judgement, Record
from atelier.criteria.near_duplicates import Labels, connect, first_equal
from atelier.errors import ArtifactError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

_SURE = 0.05  # largest chance of an empty part that counts as enough images


def groups(artworks: Iterable[str], look: Labels | None) -> Labels:
    """Label the images of one artwork, of copies of it, and of copies of those, ``[N]``.

    Args:
        artworks: Name of each image's artwork; of each 16 bytes are held.
        look: Near-duplicates, equal labels for equal groups; None does not compare pictures.
    """
    names = bytearray()  # joining them at once would hold an object of each
    for artwork in artworks:
        names += _digest(artwork)
    labels = first_equal(np.frombuffer(names, np.uint64).reshape(-1, 2))
    return labels if look is None else connect(labels, np.arange(len(look)), first_equal(look))


def place(artwork: str, salt: str) -> float:
    """Return where in [0, 1) the artwork stands, by its name alone."""
    digest = _digest(f"{salt}\0{artwork}")
    # 53 bits fill a double; of 64 the largest would round up to 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign(artworks: Iterable[str], labels: Labels, params: SplitParams) -> list[Part | None]:
    """Return the part of each image by its artwork's name; None leaves a copy out.

    Args:
        artworks: Name of each image's artwork.
        labels: From ``groups``.
        params: Shares and salt.

    Raises:
        ArtifactError: A part that should have images has none; says how many it takes.
    """
    places = (PARTS.index(_part(place(artwork, params.salt), params)) for artwork in artworks)
    own = np.fromiter(places, np.int8, len(labels))
    first = np.full(len(labels), len(PARTS), np.int8)  # of each group, the earliest part
    np.minimum.at(first, labels, own)
    kept = own == first[labels]
    parts = [PARTS[part] if keeps else None for part, keeps in zip(own, kept, strict=True)]
    _refuse_empty(parts, int((first < len(PARTS)).sum()), params)
    return parts


def records(
    rows: Iterable[tuple[str, str, str]], said: Mapping[str, Sequence[Judgement]]
) -> Iterator[Record]:
    """Join images ``(hash, file, caption)`` and judgements into what training reads.

    Raises:
        ArtifactError: Two judgements answer one question: they were not aggregated.
    """
    for image, file, caption in rows:
        answers: dict[str, Judgement] = {}
        for one in said.get(image, ()):
            if one.criterion in answers:
                raise ArtifactError(
                    f"two judgements stand on {one.criterion} of picture {image[:12]}…, which "
                    "annotate would have settled; run `dvc repro annotate`"
                )
            answers[one.criterion] = one
        yield Record(
            image=image,
            file=file,
            caption=caption,
            positive=[path for path, one in answers.items() if one.pole == "positive"],
            negative=[path for path, one in answers.items() if one.pole == "negative"],
            confidence={path: one.confidence for path, one in answers.items()},
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


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


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
