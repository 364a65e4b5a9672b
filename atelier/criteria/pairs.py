"""Preference pairs: two pictures, one better than the other, for DPO, NPO, MaPO and SDPO.

Shapes: ``N`` records. A picture is known by its row among the training records.

Of two pictures with one caption, the one with fewer negative attributes wins. Equal numbers are
a tie, which is left out or enters in both orders at half weight; it never gets a winner. A
picture without judgements has no negatives only because it was not judged, so it is not paired.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from atelier import reading
from atelier.config.pairs import AnnotationPairs
from atelier.criteria import dataset, tables
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError

COLUMNS = ("file_win", "file_lose", "caption")
_BLOCK = 256  # captions compared at once with all others
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Pair:
    """One picture that is better than another.

    Attributes:
        win: Row of the better picture.
        lose: Row of the worse one.
        caption: What both are trained on: the winner's, or the table's.
        weight: How much the pair counts; 0.5 for each order of a tie.
    """

    win: int
    lose: int
    caption: str
    weight: float


@dataclass(frozen=True)
class Paired:
    """Pairs, and how many there were of what.

    Attributes:
        pairs: In a fixed order.
        counts: Numbers by name, for metrics.
    """

    pairs: list[Pair]
    counts: dict[str, float]


def from_annotations(records: Sequence[Record], params: AnnotationPairs) -> Paired:
    """Build pairs from judgements, the same ones every time.

    Pictures of one caption stand in a ring, in the order of their hashes, and each meets its
    next ``neighbours``. A picture that is alone with its caption meets those of the most
    similar other caption instead, if it is similar enough: Jaccard's index of their words,
    ``|A and B| / |A or B|``, where equal is 1.

    Args:
        records: What training reads, N.
        params: How similar, how many, and what becomes of ties.

    Raises:
        ArtifactError: No pair is left; says of what there were how many.
    """
    judged = [row for row, one in enumerate(records) if one.positive or one.negative]
    rings = _rings(records, judged)
    met: dict[frozenset[int], None] = {}
    for ring in rings.values():
        for place, row in enumerate(ring):
            for step in range(1, min(params.neighbours, len(ring) - 1) + 1):
                met[frozenset((row, ring[(place + step) % len(ring)]))] = None
    for row, others in _nearest(records, rings, params.caption_similarity):
        for other in others[: params.neighbours]:
            met[frozenset((row, other))] = None
    pairs: list[Pair] = []
    ties = 0
    for pair in met:
        win, lose = sorted(pair, key=lambda row: (len(records[row].negative), row))
        if len(records[win].negative) != len(records[lose].negative):
            pairs.append(Pair(win, lose, records[win].caption, 1.0))
            continue
        ties += 1
        if params.ties == "halved":
            pairs += [
                Pair(one, other, records[one].caption, 0.5)
                for one, other in ((win, lose), (lose, win))
            ]
    counts = {
        "pairs": float(len(pairs)),
        "ties": float(ties),
        "unjudged": float(len(records) - len(judged)),
        "unmatched": float(len(judged) - len(frozenset().union(*met))),
    }
    if not pairs:
        raise ArtifactError(
            f"of {len(records)} training images no two make a pair: "
            + ", ".join(f"{name} {count:g}" for name, count in counts.items())
            + "; lower cpo.pairs.caption_similarity, or bring pairs (docs/pairs.md)"
        )
    return Paired(pairs, counts)


def from_table(table: Path, records: Sequence[Record], data: Path) -> Paired:
    """Read pairs from a table with the columns of ``COLUMNS``.

    Pairs with a picture outside of the training part are held out, and counted.

    Args:
        table: CSV, JSON Lines or JSON.
        records: What training reads.
        data: The folder that the table's files lie in.

    Raises:
        ArtifactError: The table is absent, is broken, or holds nothing to train on; all
            mistakes at once, by their lines.
    """
    rows = {tables.key(record.file): row for row, record in enumerate(records)}
    found = _read(table)
    mistakes = list(found.mistakes)
    there = _there(data, found, rows)
    pairs: list[Pair] = []
    held_out = 0
    for one in found.rows:
        wrong = list(_mistakes(one, data, there))
        mistakes += [f"line {one.line}: {mistake}" for mistake in wrong]
        win, lose = (rows.get(tables.key(one.cells[column])) for column in COLUMNS[:2])
        if wrong or win is None or lose is None:
            held_out += not wrong
        else:
            pairs.append(Pair(win, lose, one.cells["caption"], 1.0))
    if mistakes:
        raise ArtifactError(f"{table} does not fit:\n{tables.listed(mistakes)}")
    if not pairs:
        raise ArtifactError(
            f"{table} has no pair of which both pictures are in the training part ({held_out} "
            "have one elsewhere); add pairs"
        )
    return Paired(pairs, {"pairs": float(len(pairs)), "held_out": float(held_out)})


def _rings(records: Sequence[Record], judged: Sequence[int]) -> dict[str, list[int]]:
    """Rows by caption, each caption's in the order of their hashes."""
    rings: dict[str, list[int]] = {}
    for row in sorted(judged, key=lambda row: records[row].image):
        rings.setdefault(records[row].caption, []).append(row)
    return dict(sorted(rings.items()))


def _nearest(
    records: Sequence[Record], rings: Mapping[str, Sequence[int]], similarity: float
) -> Iterator[tuple[int, list[int]]]:
    """Yield each picture that is alone with its caption, and whom it may meet."""
    captions = list(rings)
    alone = [place for place, caption in enumerate(captions) if len(rings[caption]) == 1]
    if similarity == 1 or not alone or len(captions) == 1:
        return
    words = _bags(captions)
    sizes = np.asarray(words.sum(axis=1)).ravel()
    for start in range(0, len(alone), _BLOCK):
        block = np.array(alone[start : start + _BLOCK])
        shared = (words[block] @ words.T).toarray()
        index = shared / np.maximum(sizes[block, None] + sizes[None] - shared, 1)
        index[np.arange(len(block)), block] = -1  # not with itself
        for place, row in zip(block.tolist(), index, strict=True):
            best = int(row.argmax())  # the first of equals, in the captions' order
            if row[best] >= similarity:
                own = rings[captions[place]][0]
                others = rings[captions[best]]
                turn = sum(records[other].image < records[own].image for other in others)
                yield own, [*others[turn:], *others[:turn]]


def _bags(captions: Sequence[str]) -> "sparse.csr_array":
    """Which words each caption has, ``[captions, words]`` of 0 and 1."""
    number: dict[str, int] = {}
    rows, columns = [], []
    for row, caption in enumerate(captions):
        for word in set(_WORD.findall(caption.lower())):
            rows.append(row)
            columns.append(number.setdefault(word, len(number)))
    shape = (len(captions), max(len(number), 1))
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _read(path: Path) -> tables.Table:
    try:
        found = tables.read(path.read_bytes(), path.name, COLUMNS)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is absent; cpo.pairs.table names a CSV inside data/ (docs/pairs.md)"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    except reading.UnreadableError as error:
        raise ArtifactError(f"{path}, {error}") from None
    missing = [column for column in COLUMNS if column not in found.columns]
    if missing:
        raise ArtifactError(
            f"{path}, line 1 should name the columns {', '.join(COLUMNS)}; has no "
            f"{', '.join(missing)}; {found.says()}"
        )
    return found


def _there(data: Path, table: tables.Table, rows: Mapping[str, int]) -> Collection[str]:
    """Keys of the folder's files, which is listed only if a pair has a file not trained on."""
    named = {tables.key(row.cells[column]) for row in table.rows for column in COLUMNS[:2]}
    return rows.keys() if named <= rows.keys() else {tables.key(f) for f in dataset.files(data)}


def _mistakes(row: tables.Row, data: Path, there: Collection[str]) -> Iterator[str]:
    for column in COLUMNS:
        if not row.cells[column]:
            yield f"{column} is empty"
    files = [row.cells[column] for column in COLUMNS[:2]]
    for column, file in zip(COLUMNS, files, strict=False):
        if file and tables.key(file) not in there:
            yield f"{column} {reading.short(file)} is no file of {data}"
    if files[0] and tables.key(files[0]) == tables.key(files[1]):
        yield f"{files[0]!r} cannot be better than itself"
