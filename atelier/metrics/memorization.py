"""Memorization: the share of generated images that are too close to training images.

Shapes: ``N`` painted pictures, ``M`` test paintings, ``T`` training paintings, ``D`` features.

A picture is *near* if it lies closer to some training painting than 95% of the test paintings,
which were not trained on. A model that makes new pictures of the same kind has some near ones
too; how many depends on M, and both numbers are reported. More is a sign of copying; look at
the pairs, because in a narrow domain two independent pictures can be close, and features may
ignore a copied detail.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atelier.metrics import statistics
from atelier.metrics.about import About
from atelier.metrics.fid import Features
from atelier.metrics.statistics import LEVEL, Interval

NEAR = 0.05  # share of the test paintings that lies below the limit
_ROWS = 512  # painted pictures compared at once
_LEARNED = 2**14  # training pictures that they are compared with at once
# Test paintings that set the limit, at most: of these one in twenty lies below it, give or take
# half a hundredth, and the work grows with the training part alone.
_UNSEEN = 2000

ABOUT = About(
    name="memorisation",
    label="Near copies",
    says="Above the expected range: more pictures lie close to a training painting than "
    "unseen paintings do.",
    scale="share of pictures nearer to a training painting than the nearest 5% of the test "
    "paintings; what is expected of new pictures of the same kind is reported with it",
    preprocessing="Euclidean distance of the features that FID compares",
    better="lower",
    weights=(),
    reads_prompt=False,
    version="1",
    digits=3,
)


@dataclass(frozen=True)
class Nearest:
    """How close a painter's pictures come to what it learned from.

    Attributes:
        share: Near pictures among all, with its interval over captions.
        expected: The share that new pictures of the same kind have on average, and the range
            that holds 95% of such painters.
        limit: Distance below which a picture is near.
        distances: From each picture to the nearest training painting, ``[N]``.
        places: Which training painting that is, ``[N]``.
    """

    share: Interval
    expected: Interval
    limit: float
    distances: Sequence[float]
    places: Sequence[int]

    def closest(self, count: int) -> list[int]:
        """Return the pictures that come closest, the closest first."""
        order = np.argsort(self.distances, kind="stable")
        return [int(place) for place in order[:count]]


def memorisation(
    painted: Features, unseen: Features, learned: Features, captions: Sequence[str]
) -> Nearest:
    """Return how close ``painted`` comes to ``learned``, measured by ``unseen``.

    Args:
        painted: ``[N, D]``.
        unseen: Of the test paintings, ``[M, D]``; of more than 2000, as many evenly chosen.
        learned: Of the training paintings, ``[T, D]``.
        captions: Of each painted picture, ``[N]``.

    Raises:
        ValueError: One of the sets is empty.

    References:
        Meehan, Chaudhuri & Dasgupta, A Non-Parametric Test to Detect Data-Copying,
        arXiv:2004.05675: distances of painted and of unseen pictures to the training set are
        compared. Ours counts the closest 5% where they rank all, since a few copies matter.
    """
    if not (len(painted) and len(unseen) and len(learned)):
        raise ValueError(
            "memorisation compares painted, test and training pictures; one is none"
        )
    unseen = unseen[_evenly(len(unseen))]
    limit = float(np.quantile(nearest(unseen, learned)[0], NEAR))
    distances, places = nearest(painted, learned)
    return Nearest(
        share=statistics.share(distances < limit, captions),
        expected=expected(len(unseen), len(set(captions))),
        limit=limit,
        distances=distances.tolist(),
        places=places.tolist(),
    )


def _evenly(count: int) -> NDArray[np.int64]:
    """Which of so many test paintings set the limit: all, or ``_UNSEEN`` of them."""
    return np.linspace(0, count - 1, min(count, _UNSEEN)).round().astype(np.int64)


def expected(unseen: int, captions: int) -> Interval:
    """Return the share of near pictures that an honest painter has, with its 95% range.

    The limit is the test paintings' order statistic of rank ``k = 1 + 0.05 (M - 1)``, between
    two of them where k is no integer. A new picture of the same kind lies below it with a
    probability that is Beta(k, M + 1 - k) over the draws of the test paintings, whatever the
    distances' distribution: on average ``k / (M + 1)``, 9% for M = 20 and 5.2% for M = 500.
    The number of near ones among n such pictures is therefore beta-binomial.

    Args:
        unseen: Test paintings, M.
        captions: Different captions painted, n: pictures of one are counted as one, which
            makes the range rather too wide than too narrow.

    References:
        David & Nagaraja, Order Statistics, 3rd ed., 2003, section 2.3; Stigler, Fractional
        Order Statistics, JASA 72 (1977) 544-550.
    """
    from scipy.stats import betabinom

    rank = 1 + NEAR * (unseen - 1)
    near = betabinom(captions, rank, unseen + 1 - rank)
    low, high = near.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2]) / captions
    return Interval(rank / (unseen + 1), float(low), float(high), captions)


def nearest(
    pictures: Features, learned: Features
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each picture's distance to its nearest in ``learned``, and which that is.

    Products of matrices say which can be the nearest, within what they round; only of these the
    distance is computed as a sum of squares, so that the result is that of comparing all pairs.
    """
    rows = np.asarray(pictures, dtype=np.float64)
    distances, places = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=np.int64)
    for first in range(0, len(learned), _LEARNED):
        some = np.asarray(learned[first : first + _LEARNED], dtype=np.float64)
        squares = np.einsum("td,td->t", some, some)
        for start in range(0, len(rows), _ROWS):
            block = slice(start, start + _ROWS)
            for place, (apart, which) in enumerate(_nearest(rows[block], some, squares), start):
                if apart < distances[place]:  # of equal ones the first stays
                    distances[place], places[place] = apart, first + which
    return distances, places


def _nearest(
    rows: NDArray[np.float64], learned: NDArray[np.float64], squares: NDArray[np.float64]
) -> Iterator[tuple[float, int]]:
    """Yield each row's distance to the nearest of a few ``learned``, and which that is."""
    from scipy.spatial.distance import cdist

    # Each product of D terms is off by D roundings of its factors' lengths, at the most.
    rounding = 4 * (rows.shape[1] + 4) * np.finfo(np.float64).eps
    apart = rows @ learned.T
    apart *= -2
    apart += squares
    lengths = np.einsum("nd,nd->n", rows, rows) + squares.max()
    limits = apart.min(axis=1) + rounding * lengths
    for picture, row, limit in zip(rows, apart, limits, strict=True):
        possible = np.flatnonzero(row <= limit)
        exact = cdist(picture[None], learned[possible])[0]
        yield exact.min(), possible[exact.argmin()]
