"""Memorisation: did the painter copy paintings that it learned from?

Shapes: ``N`` painted pictures, ``M`` test paintings, ``T`` training paintings, ``D`` features.

A picture is *near* if it lies closer to some training painting than 95% of the test paintings
do, which nobody learned from. A painter that makes new pictures of the same kind has about 5%
near ones. More is a sign of copying, to be looked at in the pairs: in a narrow domain two
honest pictures can be close, and features that do not see a detail cannot miss it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atelier.metrics import statistics
from atelier.metrics.about import About
from atelier.metrics.fid import Features
from atelier.metrics.statistics import Interval

NEAR = 0.05  # share of the test paintings that lies below the limit
_ROWS = 512  # painted pictures compared at once

ABOUT = About(
    name="memorisation",
    label="Near copies",
    says="Above 5%: more pictures lie close to a training painting than unseen paintings do.",
    scale="share of pictures nearer to a training painting than the nearest 5% of the test "
    "paintings; 5% is expected of new pictures of the same kind",
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
        share: Near pictures among all, with Wilson's interval.
        limit: Distance below which a picture is near.
        distances: From each picture to the nearest training painting, ``[N]``.
        places: Which training painting that is, ``[N]``.
    """

    share: Interval
    limit: float
    distances: Sequence[float]
    places: Sequence[int]

    def closest(self, count: int) -> list[int]:
        """Return the pictures that come closest, the closest first."""
        order = np.argsort(self.distances, kind="stable")
        return [int(place) for place in order[:count]]


def memorisation(painted: Features, unseen: Features, learned: Features) -> Nearest:
    """Return how close ``painted`` comes to ``learned``, measured by ``unseen``.

    Args:
        painted: ``[N, D]``.
        unseen: Of the test paintings, ``[M, D]``.
        learned: Of the training paintings, ``[T, D]``.

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
    limit = float(np.quantile(nearest(unseen, learned)[0], NEAR))
    distances, places = nearest(painted, learned)
    near = statistics.share(int((distances < limit).sum()), len(distances))
    return Nearest(near, limit, distances.tolist(), places.tolist())


def nearest(
    pictures: Features, learned: Features
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each picture's distance to its nearest in ``learned``, and which that is."""
    from scipy.spatial.distance import cdist

    distances, places = [], []
    for start in range(0, len(pictures), _ROWS):
        block = cdist(pictures[start : start + _ROWS], learned)  # not kept: it may be large
        distances.append(block.min(axis=1))
        places.append(block.argmin(axis=1))
    return np.concatenate(distances), np.concatenate(places).astype(np.int64)
