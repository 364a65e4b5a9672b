"""Agreement of two judges on painted pictures, criterion by criterion.

``#A_neg`` counts what one annotator finds. The agreement with an independent judge on the same
pictures shows for which criteria that count can be trusted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atelier.criteria import agreement
from atelier.criteria.agreement import HALF, Agreement
from atelier.criteria.tree import Pole
from atelier.metrics import statistics
from atelier.metrics.comparison import Painted
from atelier.metrics.statistics import Interval

_POLES: tuple[Pole, Pole] = ("positive", "negative")


@dataclass(frozen=True)
class Judged:
    """Two judges on one criterion, in the pictures of all painters.

    Attributes:
        counts: What both said, as counts of pictures; the annotator is the first.
        agree: Share of the pictures where both spoke in which they agree, with its interval
            over captions; None where they never both spoke.
        kappa: Cohen's kappa of these, with its interval over captions; None where undefined.
    """

    counts: Agreement
    agree: Interval | None
    kappa: Interval | None


def compare(painted: Mapping[str, Painted], captions: Sequence[str]) -> dict[str, Judged]:
    """Return how far both judges agree on each criterion of which either spoke.

    Args:
        painted: By painter; without a second judge the result is empty.
        captions: Of each prompt; the units of the intervals, over all painters.
    """
    first: dict[tuple[str, str], Pole] = {}
    second: dict[tuple[str, str], Pole] = {}
    caption_of: dict[str, str] = {}
    for name, one in painted.items():
        if one.second is None:
            return {}
        for place, (mine, theirs) in enumerate(zip(one.found, one.second, strict=True)):
            picture = f"{place} {name}"
            caption_of[picture] = captions[place]
            first |= {(picture, path): pole for path, pole in mine.items()}
            second |= {(picture, path): pole for path, pole in theirs.items()}
    found: dict[str, Judged] = {}
    for path, counts in agreement.compare(first, second).items():
        pictures = [one for one in caption_of if {(one, path)} <= first.keys() & second.keys()]
        cells = [
            (_POLES.index(first[one, path]), _POLES.index(second[one, path]))
            for one in pictures
        ]
        of = [caption_of[one] for one in pictures]
        agree = statistics.share([a == b for a, b in cells], of) if cells else None
        found[path] = Judged(counts, agree, kappa(counts, cells, of))
    return found


def kappa(
    counts: Agreement, cells: Sequence[tuple[int, int]], captions: Sequence[str]
) -> Interval | None:
    """Return Cohen's kappa with its interval over captions; None where it is not defined.

    The interval is never narrower than that of independent pictures.

    Args:
        counts: What both said.
        cells: Row and column of the table of ``counts``, where both spoke.
        captions: Of each cell; the units of the interval.
    """
    if math.isnan(counts.kappa):
        return None
    _, slopes = agreement.kappa(counts.table + HALF)
    rows, columns = np.array(cells).T
    moves = slopes[rows, columns]
    parts = statistics.parts((moves - moves.mean()) / len(moves), captions)
    half = math.sqrt(statistics.squared_margin(parts))
    # Where captions do not differ at all, each counts as one picture.
    weight = 1.0 if half else statistics.units(parts) / len(cells)
    low, high = counts.kappa_within(half, weight)
    return Interval(counts.kappa, low, high, len(cells))
