"""Comparison of models on the same prompts and noise, by one annotator and one extractor.

Shapes: ``N`` prompts, in one order for all painters.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atelier.criteria.tree import Tree
from atelier.images import Pixels
from atelier.metrics import fid, memorization, negatives, statistics, vendi
from atelier.metrics.fid import Distance, Extractor
from atelier.metrics.memorization import Nearest
from atelier.metrics.negatives import Attributes, Verdicts
from atelier.metrics.statistics import Interval

_BLACK, _WHITE = 8, 247  # a pixel with all channels beyond these is clipped


@dataclass(frozen=True)
class Painted:
    """What one painter made of the prompts.

    Attributes:
        images: Its pictures as read back from their files, N.
        found: What the annotator found on each.
        second: What the independent judge found; None where there is none.
    """

    images: Sequence[Pixels]
    found: Sequence[Verdicts]
    second: Sequence[Verdicts] | None


@dataclass(frozen=True)
class Real:
    """The test paintings.

    Attributes:
        images: All of them, as the painter would see them.
        clean: Which of them have no negative attribute.
    """

    images: Sequence[Pixels]
    clean: Sequence[bool]


@dataclass(frozen=True)
class Score:
    """What one network said of a painter's pictures, one by one.

    Attributes:
        mean: Over the pictures.
        difference: Less the reference painter's, paired; None for the reference.
        wins: Share of prompts on which it scores above the reference; None for the reference,
            and where no prompt tells them apart.
        values: Of each picture, in the order of the prompts.
    """

    mean: Interval
    difference: Interval | None
    wins: Interval | None
    values: Sequence[float]


@dataclass(frozen=True)
class Result:
    """Everything that was measured of one painter.

    Attributes:
        captions: How many different captions it painted.
        attributes: #A_neg and A_pos by the annotator.
        difference: #A_neg less the reference painter's, paired; None for the reference.
        fid: Distance to the test paintings; None with fewer than two of either.
        fid_clean: The same to those of them without negatives.
        second: #A_neg by the independent judge; None where there is none.
        diversity: Vendi score of its pictures; None if it was not asked for.
        nearest: How close they come to the training paintings; None if it was not asked for.
        scores: By metric, those that score one picture at a time.
        clipped: Share of near-black and near-white pixels: an alarm, not a quality.
    """

    captions: int
    attributes: Attributes
    difference: Interval | None
    fid: Distance | None
    fid_clean: Distance | None
    second: Interval | None
    diversity: float | None
    nearest: Nearest | None
    scores: Mapping[str, Score]
    clipped: float


Scores = Mapping[str, Mapping[str, NDArray[np.float64]]]  # by metric, then by painter, [N]


def compare(
    painted: Mapping[str, Painted],
    real: Real,
    tree: Tree,
    extractor: Extractor | None,
    *,
    metrics: Collection[str],
    learned: fid.Features | None,
    scores: Scores,
    captions: Sequence[str],
    reference: str,
    seed: int,
) -> dict[str, Result]:
    """Measure all models under the same conditions.

    Args:
        painted: By the painter's name.
        real: What FID compares with.
        tree: The criteria judged by.
        extractor: Of the features that FID and others compare; None if its weights are absent.
        metrics: Requested metrics that need features.
        learned: Features of the training paintings; None if memorization is not requested.
        scores: Results of the metrics that score one picture at a time.
        captions: Of each prompt; the units of all intervals, however often one repeats.
        reference: Name of the painter that differences are taken to.
        seed: Of KID's subsets.
    """
    base = negatives.counts(painted[reference].found, "negative")
    features = None if extractor is None else extractor.features(real.images)
    clean = None if features is None else features[np.array(real.clean, dtype=bool)]

    def measure(name: str, one: Painted) -> Result:
        own = negatives.counts(one.found, "negative")
        theirs = None if extractor is None else extractor.features(one.images)

        def distance(to: fid.Features | None) -> Distance | None:
            if extractor is None or theirs is None or to is None or "fid" not in metrics:
                return None
            if min(len(theirs), len(to)) < 2:
                return None
            return fid.distance(theirs, to, extractor=extractor.name, seed=seed)

        def score(of: Mapping[str, NDArray[np.float64]]) -> Score:
            return _score(of[name], None if name == reference else of[reference], captions)

        return Result(
            captions=len(set(captions)),
            attributes=negatives.measure(one.found, tree, captions),
            difference=None
            if name == reference
            else statistics.difference(own, base, captions),
            fid=distance(features),
            fid_clean=distance(clean),
            second=None
            if one.second is None
            else negatives.mean(one.second, tree, captions, "negative"),
            diversity=None if theirs is None or "vendi" not in metrics else vendi.vendi(theirs),
            nearest=None
            if theirs is None or features is None or learned is None
            else memorization.memorisation(theirs, features, learned, captions),
            scores={metric: score(of) for metric, of in scores.items()},
            clipped=clipped(one.images),
        )

    return {name: measure(name, one) for name, one in painted.items()}


def _score(
    values: NDArray[np.float64],
    base: NDArray[np.float64] | None,
    captions: Sequence[str],
) -> Score:
    """A model's scores, paired with the reference model's on the same prompts and noise."""
    return Score(
        mean=statistics.mean(values, captions),
        difference=None if base is None else statistics.difference(values, base, captions),
        wins=None if base is None else statistics.wins(values, base, captions),
        values=[float(value) for value in values],
    )


def clipped(images: Sequence[Pixels]) -> float:
    """Return the share of pixels whose three channels are all near 0, or all near 255."""
    shares = [
        float(((image <= _BLACK).all(axis=-1) | (image >= _WHITE).all(axis=-1)).mean())
        for image in images
    ]
    return float(np.mean(shares))
