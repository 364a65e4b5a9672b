"""Near-duplicates: pictures that are copies of one another, found by perceptual hashes.

Shapes: ``N`` pictures, ``V`` views of each, 4 words of 64 bits for a hash.

A picture's *whole* is its pHash. A copy that was cropped, framed or mirrored has another one,
so that each picture is also hashed with its margins cut off, in several ways, and mirrored:
two pictures are neighbors if the whole of one is near to any view of the other. docs/split.md
has what is found at which distance, measured on real paintings.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, sparse

Labels = NDArray[np.int64]  # [N], the group of each image
Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]  # [., 2]

BITS = 256  # of one hash
_KEPT = 16  # lowest frequencies along each side
_RESOLVED = 64  # pixels along each side that are transformed
_SIDE = 128  # pixels along each side from which margins are cut
# Shares cut off at left, top, right and bottom: nothing; all sides, as a crop cuts them or a
# frame adds them; one side; two that meet.
_MARGINS = (
    *((margin,) * 4 for margin in (0.0, 0.02, 0.05, 0.08)),
    *(tuple(0.04 * (side == cut) for side in range(4)) for cut in range(4)),
    *(tuple(0.03 * ((side - cut) % 4 < 2) for side in range(4)) for cut in range(4)),
)
VIEWS = 2 * len(_MARGINS)  # each of them mirrored, too

_PIECE = 16  # bits of a hash that candidates have in common
_MISSED = 0.001  # chance that a pair at the largest distance has no piece in common
_CANDIDATES = 2_000_000  # compared at once
_ROWS = 100_000  # hashes unpacked at once


def views(image: Image.Image) -> Hashes:
    """Return the hashes of a picture's views, ``[V, 4]``: whole, mirrored, then the others.

    pHash: of the transform ``C = DCT-II`` of the gray picture at 64 x 64 the lowest 16 x 16
    frequencies, a bit for each that is above their median. Mirroring the picture turns the
    sign of every other column of C.

    References:
        Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010,
        section 3.2.1.
    """
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pixels = np.stack([_inside(small, margin) for margin in _MARGINS])
    lowest = fft.dctn(pixels, axes=(1, 2))[:, :_KEPT, :_KEPT]
    both = np.stack([lowest, lowest * (-1.0) ** np.arange(_KEPT)], axis=1)
    flat = both.reshape(VIEWS, BITS)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)


def meaning(bits: int) -> str:
    """Return in a sentence what a distance of ``bits`` takes for a copy."""
    return (
        f"near_duplicate_bits {bits}: two pictures are taken for copies if at most {bits} of "
        f"{BITS} bits of their perceptual hashes differ, whole, mirrored or without margins. "
        "Of 590 real paintings no two unlike ones differed in fewer than 40; docs/split.md has "
        "which crops and frames are found at which number"
    )


def near_duplicates(hashes: Hashes, bits: int) -> Labels:
    """Label the groups of pictures that chains of neighbors connect, ``[N]``.

    Only pictures that have 16 bits in common in one of many places are compared, so that
    100,000 pictures take a minute or two of one core. Of pairs at the distance ``bits`` one in
    a thousand is missed, of nearer ones far fewer, of those up to 15 none.

    Args:
        hashes: From ``views``, ``[N, V, 4]``.
        bits: Hamming distance up to which two pictures are neighbors.
    """
    distinct, which = np.unique(hashes, axis=0, return_inverse=True)
    labels = np.arange(len(distinct))
    for pairs in _neighbors(distinct, bits):
        labels = connect(labels, *pairs.T)
    return first_equal(labels[which.ravel()].tolist())


def connect(labels: Labels, left: NDArray[np.int64], right: NDArray[np.int64]) -> Labels:
    """Return labels after images ``left`` and ``right`` were joined pair by pair."""
    count = len(labels)
    everyone = np.arange(count)
    edges = (np.concatenate([everyone, left]), np.concatenate([labels, right]))
    graph = sparse.coo_array((np.ones(len(edges[0]), bool), edges), shape=(count, count))
    joined: Labels = sparse.csgraph.connected_components(graph, directed=False)[1]
    # A label is the index of one of its images, so that it can stand in the next graph.
    return np.unique(joined, return_index=True)[1][joined]


def first_equal(values: Sequence[object]) -> Labels:
    """Return for each value the index of the first one equal to it."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(value, index) for index, value in enumerate(values)])


def _inside(small: Image.Image, margin: Sequence[float]) -> NDArray[np.float64]:
    """Gray values of what is inside of a margin, ``[64, 64]``."""
    left, top, right, bottom = (_SIDE * cut for cut in margin)
    box = (left, top, _SIDE - right, _SIDE - bottom)
    resolved = small.resize((_RESOLVED, _RESOLVED), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resolved, dtype=np.float64)


def _neighbors(hashes: Hashes, bits: int) -> Iterator[Pairs]:
    """Yield pairs of pictures of which one's whole is near to a view of the other.

    Each round cuts the bits, shuffled, into 16 pieces; hashes that agree in a piece are
    candidates. One round finds all pairs up to 15 bits, which leave one of 16 pieces as it is.

    References:
        Indyk & Motwani, Approximate Nearest Neighbors, STOC 1998: hashing by sampled bits.
    """
    flat = hashes.reshape(-1, hashes.shape[2])
    for round_ in range(_rounds(bits)):
        pieces = _shuffled(flat, round_)
        for place in range(pieces.shape[1]):
            yield from _agreeing(hashes, pieces[:, place], bits)


def _rounds(bits: int) -> int:
    """How many rounds leave a pair at the distance ``bits`` without a piece in common.

    A piece is untouched by ``bits`` flips with the chance ``C(240, bits) / C(256, bits)``.
    """
    if bits < BITS // _PIECE:
        return 1
    kept = math.comb(BITS - _PIECE, bits) / math.comb(BITS, bits)
    return math.ceil(math.log(_MISSED) / math.log1p(-kept) / (BITS // _PIECE))


def _shuffled(flat: Hashes, round_: int) -> NDArray[np.uint16]:
    """The pieces of each hash in the order of this round, ``[N V, 16]``."""
    order = sorted(
        range(BITS), key=lambda bit: hashlib.blake2b(f"{round_} {bit}".encode()).digest()
    )
    parts = [
        np.packbits(np.unpackbits(rows.view(np.uint8), axis=1).take(order, axis=1), axis=1)
        for rows in (flat[start : start + _ROWS] for start in range(0, len(flat), _ROWS))
    ]
    return np.concatenate(parts).view(np.uint16)


def _agreeing(hashes: Hashes, piece: NDArray[np.uint16], bits: int) -> Iterator[Pairs]:
    """Yield neighbors among the hashes that agree in one piece."""
    views_each = hashes.shape[1]
    flat, whole = hashes.reshape(-1, hashes.shape[2]), hashes[:, 0]
    order = np.argsort(piece, kind="stable")
    sizes = np.bincount(piece, minlength=2**_PIECE)
    own = piece[::views_each]
    first, many = (np.cumsum(sizes) - sizes)[own], sizes[own]
    ends = np.cumsum(many)
    start = 0
    while start < len(own):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CANDIDATES)))
        rows = np.arange(start, stop)
        left = np.repeat(rows, many[rows])
        within = np.arange(len(left)) - np.repeat(ends[rows] - many[rows] - done, many[rows])
        right = order[first[left] + within]
        apart = np.bitwise_count(whole[left] ^ flat[right]).sum(axis=1)
        near = (apart <= bits) & (left != right // views_each)
        if near.any():
            yield np.stack([left, right // views_each], axis=1)[near]
        start = stop
