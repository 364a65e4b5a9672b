"""Deterministic train, validation and test split, by a hash of each artwork's name.

A hash of the artwork's name gives a place in [0, 1), so adding images does not move other
images, and another salt gives another split. Near-duplicates, and pictures of one artwork, stay
in one part: a group takes the place of one of its artworks. A second hash chooses that artwork,
because the smallest place would put nearly every group into the first part.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from atelier.config.annotation import SplitParams
from atelier.criteria.annotations import Judgement, Record
from atelier.criteria.tree import Pole
from atelier.errors import ArtifactError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
Labels = NDArray[np.int64]  # [N], the group of each image

_HASH_SIDE = 16  # 256 bits
_MOST_BITS_IN_PIECES = 15  # 16 pieces of 16 bits; shorter ones are shared by too many
_BLOCK = 64  # rows compared at once with all others: [64, N, 4] words of memory
_SURE = 0.05  # largest chance of an empty part that counts as enough images


def perceptual_hash(image: Image.Image) -> NDArray[np.uint64]:
    """Return the 256 bits of the picture's pHash, uint64 ``[4]``."""
    bits = imagehash.phash(image, hash_size=_HASH_SIDE).hash
    return np.packbits(bits.ravel()).view(np.uint64)


def near_duplicates(hashes: NDArray[np.uint64], bits: int) -> Labels:
    """Label the groups of pictures that chains of near neighbours connect, ``[N]``.

    Memory is linear in N. Up to 15 bits so is time, nearly: only pictures that agree in a
    piece of the hash are compared. With more bits time is quadratic, 10,000 pictures in about
    a second.

    Args:
        hashes: From ``perceptual_hash``, ``[N, 4]``.
        bits: Hamming distance, of 256, up to which two pictures are neighbours.
    """
    distinct, which = np.unique(hashes, axis=0, return_inverse=True)
    few = bits <= _MOST_BITS_IN_PIECES
    pairs = _pairs_in_pieces(distinct, bits) if few else _pairs_of_all(distinct, bits)
    labels = np.arange(len(distinct))
    for left, right in pairs:
        labels = _connect(labels, left, right)
    return _first(labels[which.ravel()].tolist())


_Pairs = Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]


def _pairs_in_pieces(hashes: NDArray[np.uint64], bits: int) -> _Pairs:
    """Yield neighbours among different hashes, found by a piece that they share.

    Of ``bits + 1`` pieces at least one is untouched by ``bits`` differences. Hashes sorted by
    a piece have their candidates beside them: the next one, the one after it, and so on.

    References:
        Manku, Jain & Das Sarma, Detecting Near-Duplicates for Web Crawling, WWW 2007, §3.
    """
    size = len(hashes)
    flat = np.unpackbits(hashes.view(np.uint8).reshape(size, -1), axis=1)
    for columns in np.array_split(np.arange(flat.shape[1]), max(bits + 1, hashes.shape[1])):
        key = np.zeros((size, 8), np.uint8)
        packed = np.packbits(flat[:, columns], axis=1)
        key[:, : packed.shape[1]] = packed
        piece = key.view(np.uint64).ravel()
        order = np.argsort(piece, kind="stable")
        piece = piece[order]
        found, apart = [np.empty((2, 0), np.int64)], 1
        at = np.flatnonzero(piece[1:] == piece[:-1])
        while len(at):
            pair = np.stack([order[at], order[at + apart]])
            different = np.bitwise_count(hashes[pair[0]] ^ hashes[pair[1]])
            found.append(pair[:, different.sum(1) <= bits])
            apart += 1
            at = at[at + apart < size]
            at = at[piece[at] == piece[at + apart]]
        left, right = np.concatenate(found, axis=1)
        yield left, right


def _pairs_of_all(hashes: NDArray[np.uint64], bits: int) -> _Pairs:
    """Yield neighbours by comparing each hash with all others, block by block."""
    for start in range(0, len(hashes), _BLOCK):
        # From this block on only: the distance is the same both ways.
        different = hashes[start : start + _BLOCK, None] ^ hashes[None, start:]
        rows, columns = np.nonzero(np.bitwise_count(different).sum(2) <= bits)
        apart = rows != columns
        if apart.any():
            yield rows[apart] + start, columns[apart] + start


def groups(artworks: Sequence[str], look: Labels | None) -> Labels:
    """Label the images that must stay together, ``[N]``.

    Args:
        artworks: Name of each image's artwork.
        look: Near-duplicates, equal labels for equal groups; None does not compare pictures.
    """
    count = np.arange(len(artworks))
    labels = _connect(count, count, _first(artworks))
    return labels if look is None else _connect(labels, count, _first(look.tolist()))


def place(artwork: str, salt: str) -> float:
    """Return where in [0, 1) the artwork stands, by its name alone."""
    return _unit(artwork, salt)[0]


def assign(artworks: Sequence[str], labels: Labels, params: SplitParams) -> list[Part]:
    """Return the part of each image.

    Raises:
        ArtifactError: A part that should have images has none; says how many it takes.
    """
    spokesmen: dict[int, tuple[float, float]] = {}  # of each group: second hash, place
    for artwork, label in zip(artworks, labels.tolist(), strict=True):
        where, rank = _unit(artwork, params.salt)
        spokesmen[label] = min(spokesmen.get(label, (1.0, 1.0)), (rank, where))
    parts = [_part(spokesmen[label][1], params) for label in labels.tolist()]
    _refuse_empty(parts, len(spokesmen), params)
    return parts


def records(
    rows: Iterable[tuple[str, str, str]], judgements: Iterable[Judgement]
) -> list[Record]:
    """Join images ``(hash, file, caption)`` and judgements into what training reads.

    Raises:
        ArtifactError: Two judgements answer one question: they were not aggregated.
    """
    said: dict[str, dict[str, Judgement]] = {}
    for one in judgements:
        if said.setdefault(one.image, {}).setdefault(one.criterion, one) is not one:
            raise ArtifactError(
                f"two judgements stand on {one.criterion} of picture {one.image[:12]}…, which "
                "annotate would have settled; run `dvc repro annotate`"
            )
    return [
        Record(
            image=image,
            file=file,
            caption=caption,
            positive=_at_pole("positive", said.get(image, {})),
            negative=_at_pole("negative", said.get(image, {})),
            confidence={path: one.confidence for path, one in said.get(image, {}).items()},
        )
        for image, file, caption in rows
    ]


def thinned(records: Sequence[Record], params: SplitParams) -> list[Record]:
    """Return the ``train_share`` of the training part: a larger share holds a smaller one.

    Raises:
        ArtifactError: Nothing would be left.
    """
    kept = [
        record
        for record in records
        if place(record.image, f"{params.salt} train") < params.train_share
    ]
    if records and not kept:
        raise ArtifactError(
            f"split.train_share {params.train_share:g} leaves none of {len(records)} images to "
            "train on; raise it"
        )
    return kept


def balance(parts: Mapping[Part, Sequence[Record]]) -> dict[str, dict[str, float | None]]:
    """Return by criterion, then part, the share of good poles among the active; None: none."""
    good = {part: _count(r.positive for r in rows) for part, rows in parts.items()}
    bad = {part: _count(r.negative for r in rows) for part, rows in parts.items()}
    criteria = sorted({path for counts in (*good.values(), *bad.values()) for path in counts})
    return {
        path: {part: _share(good[part][path], bad[part][path]) for part in parts}
        for path in criteria
    }


def _unit(artwork: str, salt: str) -> tuple[float, float]:
    """Two independent numbers in [0, 1): where the artwork stands, and its rank in a group."""
    digest = hashlib.blake2b(f"{salt}\0{artwork}".encode(), digest_size=16).digest()
    # 53 bits fill a double; of 64 the largest would round up to 1.
    first, second = (int.from_bytes(half, "big") >> 11 for half in (digest[:8], digest[8:]))
    return first / 2**53, second / 2**53


def _first(values: Sequence[object]) -> Labels:
    """For each value, the index of the first one equal to it."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(value, index) for index, value in enumerate(values)])


def _connect(labels: Labels, left: NDArray[np.int64], right: NDArray[np.int64]) -> Labels:
    """Labels after images ``left`` and ``right`` were joined pair by pair."""
    count = len(labels)
    everyone = np.arange(count)
    edges = (np.concatenate([everyone, left]), np.concatenate([labels, right]))
    graph = sparse.coo_array((np.ones(len(edges[0]), bool), edges), shape=(count, count))
    joined: Labels = sparse.csgraph.connected_components(graph, directed=False)[1]
    # A label is the index of one of its images, so that it can stand in the next graph.
    return np.unique(joined, return_index=True)[1][joined]


def _part(place: float, params: SplitParams) -> Part:
    if place < params.train:
        return "train"
    return "validation" if place < 1 - params.test else "test"


def _refuse_empty(parts: Sequence[Part], groups: int, params: SplitParams) -> None:
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


def _at_pole(pole: Pole, criteria: Mapping[str, Judgement]) -> list[str]:
    return [path for path, one in criteria.items() if one.pole == pole]


def _count(paths: Iterable[Sequence[str]]) -> Counter[str]:
    return Counter(path for some in paths for path in some)


def _share(good: int, bad: int) -> float | None:
    return good / (good + bad) if good + bad else None
