"""Mathematics of paired comparisons: Bradley–Terry, sign test, Fleiss' κ.

Shapes: ``K`` painters, ``N`` items that several people judged, ``C`` answers to choose from,
``V`` answers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from atelier.metrics import statistics
from atelier.metrics.statistics import Interval

_STEPS = 100  # of Newton; a handful is enough
_CLOSE = 1e-12


@dataclass(frozen=True)
class SignTest:
    """How many items lean either way, and how likely so lopsided a split is by chance."""

    plus: int
    minus: int
    p: float


def sign_test(leanings: ArrayLike) -> SignTest:
    """Return the exact two-sided sign test of items that lean to one side or the other.

    Under the null hypothesis each item that leans at all does so either way with probability
    1/2; those that lean to neither side (0) are left out.

    Args:
        leanings: One number an item; only its sign counts.

    References:
        Conover, Practical Nonparametric Statistics, 3rd ed., 1999, section 3.4.
    """
    signs = np.sign(np.asarray(leanings, dtype=np.float64))
    plus, minus = int((signs > 0).sum()), int((signs < 0).sum())
    p = float(stats.binomtest(plus, plus + minus).pvalue) if plus + minus else 1.0
    return SignTest(plus, minus, p)


def fleiss_kappa(counts: ArrayLike, strata: ArrayLike | None = None) -> float | None:
    """Return Fleiss' kappa: agreement beyond what the answers' frequencies alone would give.

    ``κ = (P - E) / (1 - E)`` with ``P`` the mean over items of
    ``Σ_c n_ic (n_ic - 1) / (n_i (n_i - 1))``, the share of agreeing pairs of people, and
    ``E`` the mean over items of ``Σ_c p_c²``, ``p_c`` the share of answer c in the item's
    stratum. Items may have been judged by different numbers of people; those with one judge say
    nothing of agreement and are left out. Where unlike items share one chance, people agree
    beyond it by the items alone: coin tossers who choose between two of three painters reach
    κ = 0.26 if all pairs are pooled.

    Args:
        counts: How many people gave each answer to each item, ``[N, C]``.
        strata: What kind of item each is, ``[N]``; None where all are of one kind.

    Returns:
        Kappa, at most 1; None where no item has two judges, or there is only one answer.

    References:
        Fleiss, Measuring nominal scale agreement among many raters, Psychological
        Bulletin 76 (1971) 378-382.
    """
    agreement = _agreement(counts, strata)
    return None if agreement is None else agreement[0]


def kappa(counts: ArrayLike, strata: ArrayLike, captions: ArrayLike) -> Interval | None:
    """Return ``fleiss_kappa`` with its jackknife interval over captions; None where undefined.

    With ``κ_g`` the kappa without caption g, the pseudo-values ``G κ - (G-1) κ_g`` have
    Student's interval about their mean, which is less biased than κ. (The bootstrap over
    captions holds the truth in 65 to 91% of small surveys only: a caption drawn twice looks
    like agreement that was expected.) The people are taken as they are. Where all agree on
    everything, the disagreement that as many captions cannot exclude is taken off.

    Args:
        counts: As for ``fleiss_kappa``.
        strata: As for ``fleiss_kappa``.
        captions: Of each item, ``[N]``.

    Returns:
        Its count is that of the captions.

    References:
        Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11.
    """
    table, kinds, of = np.asarray(counts), np.asarray(strata), np.asarray(captions)
    whole = _agreement(table, kinds)
    if whole is None:
        return None
    value, chance = whole
    names = np.unique(of)
    without = [fleiss_kappa(table[of != name], kinds[of != name]) for name in names]
    known = [one for one in without if one is not None]
    if len(names) < 2 or len(known) < len(names):
        return Interval(value, -1.0, 1.0, len(names))
    pseudo = len(names) * value - (len(names) - 1) * np.array(known)
    center, spread = float(pseudo.mean()), float(pseudo.var(ddof=1)) / len(names)
    half = math.sqrt(statistics.quantile_squared(len(names)) * spread)
    if half < _CLOSE:
        half = statistics.bounded(0.0, 0.0, most=1, units=len(names))[1] / (1 - chance)
    low, high = min(center - half, value), max(center + half, value)
    return Interval(value, max(low, -1.0), min(high, 1.0), len(names))


def _agreement(counts: ArrayLike, strata: ArrayLike | None) -> tuple[float, float] | None:
    """Kappa and the agreement by chance; None where no item has two judges or one answer."""
    table = np.asarray(counts, dtype=np.float64)
    kinds = np.zeros(len(table)) if strata is None else np.asarray(strata)
    judges = table.sum(axis=1)
    table, kinds, judges = (part[judges > 1] for part in (table, kinds, judges))
    if not len(table):
        return None
    observed = ((table * (table - 1)).sum(axis=1) / (judges * (judges - 1))).mean()
    expected = 0.0
    for kind in np.unique(kinds):
        own = table[kinds == kind]
        expected += len(own) / len(table) * ((own.sum(axis=0) / own.sum()) ** 2).sum()
    if expected > 1 - _CLOSE:
        return None
    return float((observed - expected) / (1 - expected)), float(expected)


@dataclass(frozen=True)
class Ballots:
    """Answers to who of two painters is better, one by one.

    Attributes:
        first: Place of the one painter, ``[V]``.
        second: Place of the other, ``[V]``.
        worth: 1 for the first, 0 for the second, ½ for neither, ``[V]``.
        captions: Of the two pictures, ``[V]``.
        raters: Who answered, ``[V]``.
    """

    first: Sequence[int]
    second: Sequence[int]
    worth: Sequence[float]
    captions: Sequence[str]
    raters: Sequence[str]


def scores(ballots: Ballots, painters: int) -> list[Interval]:
    """Return each painter's ``bradley_terry`` score with its interval over captions and people.

    An answer with ``first``, ``second`` moves the scores by ``I⁻¹ (worth - P)(e_first -
    e_second)``, ``I`` the Fisher information: these are summed by rater and caption
    (``statistics.squared_margin``). The interval is never narrower than that of independent
    answers.

    Args:
        ballots: The answers.
        painters: How many there are, K.

    Returns:
        An interval a painter, in log odds against an average one; its count is the painter's
        comparisons.

    Raises:
        ValueError: Two painters never met, directly or over others.
    """
    first, second = np.asarray(ballots.first), np.asarray(ballots.second)
    worth = np.asarray(ballots.worth, dtype=np.float64)
    wins = np.zeros((painters, painters))
    np.add.at(wins, (first, second), worth)
    np.add.at(wins, (second, first), 1 - worth)
    values = bradley_terry(wins)
    spread = np.linalg.pinv(_information(_prior(wins), values), hermitian=True)
    surprise = worth - _beats(values)[first, second]
    moves = surprise[:, None] * (spread[first] - spread[second])  # [V, K]
    met = (wins + wins.T).sum(axis=1)
    found = []
    for place, score in enumerate(values.tolist()):
        cells = statistics.parts(moves[:, place], ballots.captions, ballots.raters)
        least = statistics.quantile_squared(cells.shape[1]) * spread[place, place]
        half = math.sqrt(max(statistics.squared_margin(cells), least))
        found.append(Interval(score, score - half, score + half, round(float(met[place]))))
    return found


def bradley_terry(wins: ArrayLike) -> NDArray[np.float64]:
    """Return each painter's score ``θ``, ``[K]``; the scores sum to 0.

    ``P(i beats j) = 1 / (1 + exp(θ_j - θ_i))``. The maximum of the likelihood, after half a win
    is added each way between any two who met: without it the score of one who always wins is
    infinite. With two painters this is the log odds ``ln((w + ½) / (l + ½))``.

    Args:
        wins: ``wins[i, j]`` is how often i was preferred to j, a tie half a win each,
            ``[K, K]``.

    Raises:
        ValueError: Not square, negative, or two painters never met, directly or over others.

    References:
        Bradley & Terry, Rank analysis of incomplete block designs, Biometrika 39 (1952)
        324-345. Agresti, Categorical Data Analysis, 3rd ed., 2013, section 11.6.
    """
    given = np.asarray(wins, dtype=np.float64)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or (given < 0).any():
        raise ValueError(f"a square table of wins, none below 0; got {given!r}")
    _connected(given + given.T > 0)
    return _maximum(_prior(given))


def _prior(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wins with half of one added each way between any two who met."""
    table: NDArray[np.float64] = wins + 0.5 * (wins + wins.T > 0)
    np.fill_diagonal(table, 0)
    return table


def _connected(met: NDArray[np.bool_]) -> None:
    reach = met | np.eye(len(met), dtype=bool)
    for _ in range(len(met)):
        reach = reach @ reach
    if not reach.all():
        raise ValueError("some painters were never compared, so no common scale exists")


def _maximum(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's method on the concave log likelihood, in the plane where scores sum to 0."""
    scores = np.zeros(len(table))
    for _ in range(_STEPS):
        expected = (table + table.T) * _beats(scores)
        gradient = (table - expected).sum(axis=1)
        step = np.linalg.pinv(_information(table, scores), hermitian=True) @ gradient
        scores += step / max(1.0, float(np.abs(step).max()))  # never more than one unit
        if np.abs(step).max() < _CLOSE:
            break
    centred: NDArray[np.float64] = scores - scores.mean()
    return centred


def _beats(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability that the row's painter beats the column's, ``[K, K]``."""
    odds: NDArray[np.float64] = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
    return odds


def _information(
    table: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fisher information of the scores, ``[K, K]``; its null space is adding a constant."""
    chance = _beats(scores)
    weights = (table + table.T) * chance * (1 - chance)
    information: NDArray[np.float64] = np.diag(weights.sum(axis=1)) - weights
    return information
