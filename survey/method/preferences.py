"""Mathematics of paired comparisons: Bradley–Terry, sign test, Fleiss' κ.

Shapes: ``K`` painters, ``N`` items that several people judged, ``C`` answers to choose from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from atelier.metrics.statistics import LEVEL, Interval

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


def fleiss_kappa(counts: ArrayLike) -> float | None:
    """Return Fleiss' kappa: agreement beyond what the answers' frequencies alone would give.

    ``κ = (P - E) / (1 - E)`` with ``P`` the mean over items of
    ``Σ_c n_ic (n_ic - 1) / (n_i (n_i - 1))``, the share of agreeing pairs of people, and
    ``E = Σ_c p_c²``, ``p_c`` the share of answer c among all. Items may have been judged by
    different numbers of people; those with one judge say nothing of agreement and are left out.

    Args:
        counts: How many people gave each answer to each item, ``[N, C]``.

    Returns:
        Kappa, at most 1; None where no item has two judges, or there is only one answer.

    References:
        Fleiss, Measuring nominal scale agreement among many raters, Psychological
        Bulletin 76 (1971) 378-382.
    """
    table = np.asarray(counts, dtype=np.float64)
    judges = table.sum(axis=1)
    table, judges = table[judges > 1], judges[judges > 1]
    if not len(table):
        return None
    observed = ((table * (table - 1)).sum(axis=1) / (judges * (judges - 1))).mean()
    expected = ((table.sum(axis=0) / judges.sum()) ** 2).sum()
    if expected > 1 - _CLOSE:
        return None
    return float((observed - expected) / (1 - expected))


def bradley_terry(wins: ArrayLike) -> list[Interval]:
    """Return each painter's score ``θ`` with its 95% interval; the scores sum to 0.

    ``P(i beats j) = 1 / (1 + exp(θ_j - θ_i))``. The maximum of the likelihood, after half a win
    is added each way between any two who met: without it the score of one who always wins is
    infinite. With two painters this is the log odds ``ln((w + ½) / (l + ½))``. The interval is
    ``θ ± z s`` with ``s²`` on the diagonal of the pseudo-inverse of the Fisher information; it
    takes votes as independent.

    Args:
        wins: ``wins[i, j]`` is how often i was preferred to j, a tie half a win each,
            ``[K, K]``.

    Returns:
        An interval a painter, in log odds against an average one; its count is the painter's
        comparisons.

    Raises:
        ValueError: Not square, negative, or two painters never met, directly or over others.

    References:
        Bradley & Terry, Rank analysis of incomplete block designs, Biometrika 39 (1952)
        324-345. Agresti, Categorical Data Analysis, 3rd ed., 2013, section 11.6.
    """
    given = np.asarray(wins, dtype=np.float64)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or (given < 0).any():
        raise ValueError(f"a square table of wins, none below 0; got {given!r}")
    met = given + given.T
    _connected(met > 0)
    table = given + 0.5 * (met > 0)
    np.fill_diagonal(table, 0)
    scores = _maximum(table)
    spread = np.sqrt(np.diag(np.linalg.pinv(_information(table, scores), hermitian=True)))
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * spread
    counts = (met - np.diag(np.diag(met))).sum(axis=1)
    return [
        Interval(float(score), float(score - h), float(score + h), round(float(count)))
        for score, h, count in zip(scores, half, counts, strict=True)
    ]


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
