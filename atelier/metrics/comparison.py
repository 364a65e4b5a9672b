"""Comparison of models on the same prompts and noise, by one annotator and one extractor.

Shapes: ``N`` prompts, in one order for all painters.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atelier.annotators.comparing import Compared
from atelier.criteria.tree import Tree
from atelier.images import Pixels
from atelier.metrics import fid, memorization, negatives, statistics, vendi
from atelier.metrics.fid import Distance, Features
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
    """Features of the paintings that painted pictures are compared with.

    Attributes:
        test: Of the test paintings, ``[M, D]``.
        clean: Which of them have no negative attribute.
        learned: Of the training paintings; None if memorisation is not asked for.
    """

    test: Features
    clean: Sequence[bool]
    learned: Features | None


@dataclass(frozen=True)
class Measured:
    """What was measured of one painter's pictures as a set.

    Attributes:
        fid: Distance to the test paintings; None with fewer than two of either.
        fid_clean: The same to those of them without negatives.
        diversity: Vendi score of its pictures; None if it was not asked for.
        nearest: How close they come to the training paintings; None if it was not asked for.
        clipped: Share of near-black and near-white pixels: an alarm, not a quality.
    """

    fid: Distance | None
    fid_clean: Distance | None
    diversity: float | None
    nearest: Nearest | None
    clipped: float


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
class Result(Measured):
    """Everything that is known of one painter, beside the reference painter.

    Attributes:
        captions: How many different captions it painted.
        attributes: #A_neg and A_pos by the annotator.
        difference: #A_neg less the reference painter's, paired; None for the reference.
        second: #A_neg by the independent judge; None where there is none.
        scores: By metric, those that score one picture at a time.
    """

    captions: int
    attributes: Attributes
    difference: Interval | None
    second: Interval | None
    scores: Mapping[str, Score]


Scores = Mapping[str, Mapping[str, NDArray[np.float64]]]  # by metric, then by painter, [N]


def measure(
    images: Sequence[Pixels],
    features: Features | None,
    real: Real | None,
    *,
    metrics: Collection[str],
    captions: Sequence[str],
    extractor: str | None,
    seed: int,
) -> Measured:
    """Measure one painter's pictures as a set.

    Args:
        images: Its pictures.
        features: Theirs; None if the network that gives them is not here.
        real: What they are compared with; None likewise.
        metrics: Requested metrics that need features.
        captions: Of each picture.
        extractor: Name of the network that gives features.
        seed: Of KID's subsets.
    """

    def distance(to: Features) -> Distance | None:
        if features is None or extractor is None or "fid" not in metrics:
            return None
        if min(len(features), len(to)) < 2:
            return None
        return fid.distance(features, to, extractor=extractor, seed=seed)

    return Measured(
        fid=None if real is None else distance(real.test),
        fid_clean=None
        if real is None
        else distance(real.test[np.array(real.clean, dtype=bool)]),
        diversity=None if features is None or "vendi" not in metrics else vendi.vendi(features),
        nearest=None
        if features is None or real is None or real.learned is None
        else memorization.memorisation(features, real.test, real.learned, captions),
        clipped=clipped(images),
    )


def compare(
    painted: Mapping[str, Painted],
    measured: Mapping[str, Measured],
    tree: Tree,
    *,
    scores: Scores,
    captions: Sequence[str],
    reference: str,
) -> dict[str, Result]:
    """Compare all models with the reference model, under the same conditions.

    Args:
        painted: By the painter's name.
        measured: What ``measure`` returned, by the painter's name.
        tree: The criteria judged by.
        scores: Results of the metrics that score one picture at a time.
        captions: Of each prompt; the units of all intervals, however often one repeats.
        reference: Name of the painter that differences are taken to.
    """
    base = negatives.counts(painted[reference].found, "negative")

    def result(name: str, one: Painted) -> Result:
        own = negatives.counts(one.found, "negative")

        def score(of: Mapping[str, NDArray[np.float64]]) -> Score:
            return _score(of[name], None if name == reference else of[reference], captions)

        return Result(
            captions=len(set(captions)),
            attributes=negatives.measure(one.found, tree, captions),
            difference=None
            if name == reference
            else statistics.difference(own, base, captions),
            second=None
            if one.second is None
            else negatives.mean(one.second, tree, captions, "negative"),
            scores={metric: score(of) for metric, of in scores.items()},
            **vars(measured[name]),
        )

    return {name: result(name, one) for name, one in painted.items()}


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


@dataclass(frozen=True)
class Preference:
    """What a judge that saw both pictures says of two painters on one criterion.

    Attributes:
        wins: Share of captions on which the second's picture shows more of the good pole, of
            those on which both orders say alike that one does; None without such.
        ties: Pictures of which both orders see no difference.
        contradictions: Pictures of which the two orders say different things.
    """

    wins: Interval | None
    ties: int
    contradictions: int


def preferences(
    said: Sequence[Compared | None], captions: Sequence[str], paths: Sequence[str]
) -> dict[str, Preference]:
    """Return who wins on each criterion of which something was said.

    Args:
        said: Of each prompt: which of the two painters' pictures shows more, in both orders;
            None where there is no usable answer.
        captions: Of each prompt; the units of the intervals.
        paths: The criteria, in the order of the result.
    """
    found = {}
    for path in paths:
        hits, units, ties, contradictions = [], [], 0, 0
        for one, caption in zip(said, captions, strict=True):
            if one is None or path not in one.forth:
                continue
            choice = one.settled.get(path)
            ties += choice == "neither"
            contradictions += choice is None
            if choice in ("first", "second"):
                hits.append(choice == "second")
                units.append(caption)
        if hits or ties or contradictions:
            wins = statistics.share(hits, units) if hits else None
            found[path] = Preference(wins, ties, contradictions)
    return found


def clipped(images: Sequence[Pixels]) -> float:
    """Return the share of pixels whose three channels are all near 0, or all near 255."""
    shares = [
        float(((image <= _BLACK).all(axis=-1) | (image >= _WHITE).all(axis=-1)).mean())
        for image in images
    ]
    return float(np.mean(shares))
