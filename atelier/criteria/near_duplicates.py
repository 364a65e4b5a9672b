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
from typing import Any, NamedTuple, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, sparse

Labels = NDArray[np.int64]  # [N], the group of each image
Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]  # [., 2]


class Stored(Protocol):
    """Hashes of pictures, ``[N, V, 4]``: an array, or a file of which parts are read."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> Hashes: ...


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
_MANY = 2**18  # pictures, of more of which these are more bits
_LONGEST = 24  # such bits at most
_MISSED = 0.001  # chance that a pair at the largest distance has no piece in common
_CANDIDATES = 2**16  # compared at once
_PICTURES = 2048  # whose hashes are looked at at once
_ROWS = 8192  # hashes unpacked at once
_TABLES = 2**26  # bytes of the tables of pieces that are looked up at once
_CONNECTED = 2**16  # pairs that are collected before they are connected


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


def near_duplicates(hashes: Stored, bits: int) -> Labels:
    """Label the groups of pictures that chains of neighbors connect, ``[N]``.

    Only pictures that have a piece of their hashes in common in one of many places are
    compared, so that time grows hardly faster than the pictures. Of pairs at the distance
    ``bits`` one in a thousand is missed, of nearer ones far fewer, of those up to 15 none (up
    to 9, where there are more than 262,144 pictures).

    In memory are the wholes and the tables of a few pieces.

    Args:
        hashes: From ``views``, ``[N, V, 4]``, of which a few rows are read at a time.
        bits: Hamming distance up to which two pictures are neighbors.
    """
    labels = _equal(hashes)
    distinct = labels == np.arange(len(labels))
    found, count = [np.empty((0, 2), np.int64)], 0
    for pairs in _neighbors(hashes, distinct, bits):
        new = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
        if len(new):
            found.append(new)
            count += len(new)
        if count >= _CONNECTED:
            labels = connect(labels, *np.concatenate(found).T)
            found, count = found[:1], 0
    return connect(labels, *np.concatenate(found).T)


def connect(labels: Labels, left: NDArray[np.int64], right: NDArray[np.int64]) -> Labels:
    """Return labels after images ``left`` and ``right`` were joined pair by pair.

    A label is the index of the first of its images.
    """
    ends = np.stack([labels[left], labels[right]])
    ends = ends[:, ends[0] != ends[1]]
    nodes, edges = np.unique(ends, return_inverse=True)
    one, other = edges.reshape(ends.shape)
    graph = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(len(nodes),) * 2)
    joined = sparse.csgraph.connected_components(graph, directed=False)[1]
    renamed = np.arange(len(labels))
    renamed[nodes] = nodes[np.unique(joined, return_index=True)[1]][joined]
    return renamed[labels]


def first_equal(values: NDArray[Any]) -> Labels:
    """Return the index of the first row of ``values``, ``[N, ...]``, equal to each, ``[N]``."""
    if not len(values):
        return np.empty(0, np.int64)
    columns = values.reshape(len(values), -1).T
    order = np.lexsort(columns)  # stable: of equal ones the first comes first
    new = np.ones(len(order), bool)
    new[1:] = (columns[:, order[1:]] != columns[:, order[:-1]]).any(axis=0)
    first = np.empty(len(order), np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def _inside(small: Image.Image, margin: Sequence[float]) -> NDArray[np.float64]:
    """Gray values of what is inside of a margin, ``[64, 64]``."""
    left, top, right, bottom = (_SIDE * cut for cut in margin)
    box = (left, top, _SIDE - right, _SIDE - bottom)
    resolved = small.resize((_RESOLVED, _RESOLVED), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resolved, dtype=np.float64)


def _equal(hashes: Stored) -> Labels:
    """Index of the first picture with the same hashes, by digests of 128 bits, ``[N]``."""
    digests = np.empty((len(hashes), 2), np.uint64)
    for start, some in _parts(hashes):
        found = b"".join(xxhash.xxh3_128_digest(one.tobytes()) for one in some)
        digests[start : start + len(some)] = np.frombuffer(found, np.uint64).reshape(-1, 2)
    return first_equal(digests)


def _parts(hashes: Stored) -> Iterator[tuple[int, Hashes]]:
    """Yield a few pictures at a time, and the index of the first of them."""
    for start in range(0, len(hashes), _PICTURES):
        yield start, hashes[start : start + _PICTURES]


def _neighbors(hashes: Stored, distinct: NDArray[np.bool_], bits: int) -> Iterator[Pairs]:
    """Yield pairs of ``distinct`` pictures of which one's whole is near to a view of the other.

    Each round cuts the bits, shuffled, into pieces; hashes that agree in a piece are
    candidates. One round of 16 pieces finds all pairs up to 15 bits, which leave one of the
    pieces as it is.

    References:
        Indyk & Motwani, Approximate Nearest Neighbors, STOC 1998: hashing by sampled bits.
    """
    indices = np.flatnonzero(distinct)
    wholes = _Hashed.of(_wholes(hashes, distinct, len(indices)))
    length = _piece_bits(len(indices))
    pieces = list(_pieces(length, bits))
    at_once = max(1, _TABLES // (4 * len(indices) + 4 * 2**length))
    tables: list[_Table] = []
    for first in range(0, len(pieces), at_once):
        chosen = pieces[first : first + at_once]
        tables.clear()  # first, so that memory holds those of one turn
        tables += (_Table.of(_columns(wholes.every, [piece])[0], length) for piece in chosen)
        done = 0
        for start, some in _parts(hashes):
            own = some[distinct[start : start + len(some)]]
            flat = _Hashed.of(own.reshape(-1, own.shape[2]))
            mine = np.repeat(np.arange(done, done + len(own)), own.shape[1])
            for table, column in zip(tables, _columns(flat.every, chosen), strict=True):
                for left, right in _agreeing(wholes, table, flat, column, mine, bits):
                    yield indices[np.stack([left, mine[right]], axis=1)]
            done += len(own)


def _wholes(hashes: Stored, distinct: NDArray[np.bool_], count: int) -> Hashes:
    """The first view of each distinct picture, ``[count, 4]``."""
    wholes = np.empty((count, 4), np.uint64)
    done = 0
    for start, some in _parts(hashes):
        own = some[distinct[start : start + len(some)], 0]
        wholes[done : done + len(own)] = own
        done += len(own)
    return wholes


def _piece_bits(count: int) -> int:
    """How many bits of a hash candidates have in common: more of many pictures.

    With as many as tell the pictures apart, the candidates of each stay as few.
    """
    return _PIECE if count <= _MANY else min((count - 1).bit_length(), _LONGEST)


def _pieces(length: int, bits: int) -> Iterator[Sequence[int]]:
    """Yield the bits of each piece, round by round."""
    for round_ in range(_rounds(length, bits)):
        order = sorted(
            range(BITS), key=lambda bit: hashlib.blake2b(f"{round_} {bit}".encode()).digest()
        )
        for start in range(0, BITS - length + 1, length):
            yield order[start : start + length]


def _rounds(length: int, bits: int) -> int:
    """How many rounds leave a pair at the distance ``bits`` without a piece in common.

    A piece of L bits is untouched by ``bits`` flips with the chance
    ``C(256 - L, bits) / C(256, bits)``.
    """
    pieces = BITS // length
    if bits < pieces:
        return 1
    kept = math.comb(BITS - length, bits) / math.comb(BITS, bits)
    return math.ceil(math.log(_MISSED) / math.log1p(-kept) / pieces)


def _columns(flat: Hashes, pieces: Sequence[Sequence[int]]) -> NDArray[np.uint32]:
    """Return what each hash holds in each piece, as a number, ``[pieces, M]``."""
    weights = np.zeros((BITS, len(pieces)), np.float32)  # whole numbers up to 2^24 are exact
    for column, piece in enumerate(pieces):
        weights[list(piece), column] = 2.0 ** np.arange(len(piece))
    found = np.empty((len(pieces), len(flat)), np.uint32)
    for start in range(0, len(flat), _ROWS):
        rows = flat[start : start + _ROWS]
        flags = np.unpackbits(rows.view(np.uint8), axis=1).astype(np.float32)
        found[:, start : start + _ROWS] = (flags @ weights).T
    return found


class _Table(NamedTuple):
    """Wholes by what they hold in a piece: v are ``order[starts[v] : starts[v + 1]]``."""

    order: NDArray[np.int32]  # [N]
    starts: NDArray[np.int32]  # [2^L + 1]

    @classmethod
    def of(cls, column: NDArray[np.uint32], length: int) -> "_Table":
        """Sort the wholes by their piece."""
        starts = np.zeros(2**length + 1, np.int32)
        np.cumsum(np.bincount(column, minlength=2**length), out=starts[1:])
        return cls(np.argsort(column, kind="stable").astype(np.int32), starts)


class _Hashed(NamedTuple):
    """Hashes, and their first halves, each as one value: single values are moved faster."""

    every: Hashes  # [M, 4]
    halves: NDArray[np.complex128]  # [M]

    @classmethod
    def of(cls, every: Hashes) -> "_Hashed":
        """Take the first halves out."""
        return cls(every, np.ascontiguousarray(every[:, :2]).view(np.complex128)[:, 0])


def _agreeing(
    wholes: _Hashed,
    table: _Table,
    some: _Hashed,
    column: NDArray[np.uint32],
    mine: NDArray[np.int64],
    bits: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield wholes and hashes that agree in one piece and are near, by their indices.

    Args:
        wholes: N of them.
        table: Of the wholes.
        some: M hashes.
        column: What these hold in the piece, ``[M]``.
        mine: The wholes of the same pictures, ``[M]``.
        bits: Largest distance.
    """
    first = table.starts[column]
    many = table.starts[column + 1] - first
    ends = np.cumsum(many, dtype=np.int64)
    shift = first - (ends - many)
    start = 0
    while start < len(column):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CANDIDATES)))
        each = many[start:stop]
        left = table.order.take(
            np.arange(done, ends[stop - 1]) + np.repeat(shift[start:stop], each)
        )
        one, other = wholes.halves.take(left), np.repeat(some.halves[start:stop], each)
        # Unlike pictures differ in half of the bits: half of a hash tells nearly all apart.
        differ = (one.view(np.uint64) ^ other.view(np.uint64)).reshape(-1, 2)
        apart = np.bitwise_count(differ)
        near = np.flatnonzero(apart[:, 0] + apart[:, 1] <= bits)
        left, right = left[near], np.searchsorted(ends, done + near, side="right")
        left, right = left[left != mine[right]], right[left != mine[right]]
        if left.size:
            whole = np.bitwise_count(wholes.every[left] ^ some.every[right]).sum(axis=1)
            yield left[whole <= bits], right[whole <= bits]
        start = stop
