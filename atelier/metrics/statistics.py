"""Intervals of means and shares over captions: the uncertainty from a finite set of captions.

Shapes: ``N`` images, ``G`` different captions, ``R`` rows (raters or training seeds).

Pictures of one caption resemble each other, so the caption is the unit: an interval estimates
what the same number of *other captions* might give. The variance between captions has a closed
form (the linearized one of a ratio of cluster sums), and its t-quantile keeps the level where
the percentile and the BCa bootstrap over captions are too narrow: docs/log.md has the
measurement. Intervals do not cover another training seed, except those of a study.

References:
    Cochran, Sampling Techniques, 3rd ed., 1977, sections 6.3 and 9A: variance of a ratio of
    cluster sums. Cameron, Gelbach & Miller, Robust Inference with Multiway Clustering, Journal
    of Business & Economic Statistics 29 (2011) 238-249. Korn & Graubard, Confidence Intervals
    for Proportions with Small Expected Number of Positive Counts Estimated from Survey Data,
    Survey Methodology 24 (1998) 193-201: shares from clusters, and t in place of z.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LEVEL = 0.95  # coverage of every interval

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval.

    Attributes:
        estimate: The number itself.
        low: Lower end.
        high: Upper end.
        count: Images behind it.
    """

    estimate: float
    low: float
    high: float
    count: int


def mean(values: ArrayLike, captions: ArrayLike) -> Interval:
    """Return the mean with its t-interval over captions.

    ``m ± t_{G-1} s`` with ``s² = G/(G-1) Σ_g (Σ_{i in g} (x_i - m) / N)²``; with a caption for
    each image this is Student's interval.

    Args:
        values: One number an image, ``[N]``, finite.
        captions: Of each image, ``[N]``, texts or numbers; equal ones are one unit.

    Returns:
        The mean and its interval, in the unit of ``values``; the whole line with one caption.

    Raises:
        ValueError: ``values`` is empty, not one-dimensional, or not finite; or the shapes
            differ.
    """
    numbers = _numbers(values)
    center = float(numbers.mean())
    half = math.sqrt(squared_margin(parts((numbers - center) / len(numbers), captions)))
    return Interval(center, center - half, center + half, len(numbers))


def difference(values: ArrayLike, reference: ArrayLike, captions: ArrayLike) -> Interval:
    """Return ``mean(values - reference)``, paired, with its t-interval over captions.

    Both were measured on the same prompts and noise: what the prompt itself does cancels, and
    the interval is narrower than that of two separate means.

    Args:
        values: One number an image, ``[N]``.
        reference: The partner of each, ``[N]``.
        captions: As for ``mean``.

    Raises:
        ValueError: The shapes differ, or as for ``mean``.
    """
    ours, theirs = _pair(values, reference)
    return mean(ours - theirs, captions)


def count(
    values: ArrayLike,
    captions: ArrayLike,
    raters: ArrayLike | None = None,
    *,
    most: float = math.inf,
) -> Interval:
    """Return the mean of counts between 0 and ``most`` with its score interval over captions.

    The variance between captions is estimated as for ``mean``; ``bounded`` then lets it change
    along the interval as that of counts does, so that the ends stay inside [0, most] and a
    count that was never seen keeps a width.

    Args:
        values: One count an image, ``[N]``.
        captions: As for ``mean``.
        raters: Who gave each answer, ``[N]``, where the values are people's answers: the
            interval is then about other captions and other people together.
        most: Largest count that an image can have.

    Raises:
        ValueError: A count is outside [0, most], or as for ``mean``.
    """
    numbers = _numbers(values)
    if numbers.min() < 0 or numbers.max() > most:
        raise ValueError(f"counts between 0 and {most:g}; got {numbers!r}")
    center = float(numbers.mean())
    cells = parts((numbers - center) / len(numbers), captions, raters)
    squared = squared_margin(cells)
    if most == 1:  # images of one caption are hardly less alike than independent ones
        chance = center * (1 - center) / len(numbers)
        squared = max(squared, quantile_squared(cells.shape[1]) * chance)
    low, high = bounded(center, squared, most=most, units=units(cells))
    return Interval(center, low, high, len(numbers))


def share(hits: ArrayLike, captions: ArrayLike, raters: ArrayLike | None = None) -> Interval:
    """Return the share of hits: a count of at most 1.

    With a caption for each image this is Wilson's interval, with t in place of z.

    Args:
        hits: Whether each image is one, ``[N]``.
        captions: As for ``mean``.
        raters: As for ``count``.

    Raises:
        ValueError: As for ``mean``.

    References:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
        JASA 22 (1927) 209-212.
    """
    return count(hits, captions, raters, most=1)


def wins(values: ArrayLike, reference: ArrayLike, captions: ArrayLike) -> Interval | None:
    """Return the share of pairs in which the value is the larger.

    Pairs that are equal say nothing and are left out, as in a sign test.

    Args:
        values: One number an image, ``[N]``.
        reference: The partner of each, ``[N]``.
        captions: As for ``mean``.

    Returns:
        Share in [0, 1] of the pairs that differ; None if none does.

    Raises:
        ValueError: As for ``difference``.
    """
    ours, theirs = _pair(values, reference)
    differing = ours != theirs
    if not differing.any():
        return None
    return share((ours > theirs)[differing], np.asarray(captions)[differing])


def parts(
    contributions: Numbers, captions: ArrayLike, raters: ArrayLike | None = None
) -> Numbers:
    """Return contributions summed by rater (one row without any) and caption, ``[R, G]``.

    Args:
        contributions: Of each image or answer to an estimate's deviation from the truth,
            ``[N]``; they sum to 0.
        captions: As for ``mean``.
        raters: As for ``count``.

    Raises:
        ValueError: The shapes differ.
    """
    rows = np.zeros(len(contributions), np.int64) if raters is None else _labels(raters)
    columns = _labels(captions)
    if not len(rows) == len(columns) == len(contributions):
        raise ValueError(f"captions {columns.shape} and values {contributions.shape} differ")
    cells = np.zeros((int(rows.max()) + 1, int(columns.max()) + 1))
    np.add.at(cells, (rows, columns), contributions)
    return cells


def units(cells: Numbers) -> int:
    """Return how many independent units stand behind ``parts``: the scarcer of its sources."""
    rows, columns = len(cells), len(cells.T)
    return min(rows, columns) if rows > 1 else columns


def squared_margin(cells: Numbers, residuals: Numbers | None = None) -> float:
    """Return the square of half a t-interval's width, for one or two crossed sources.

    With ``V = n/(n-1) Σ (sum of a row, or of a column)²`` the result is
    ``t²_{G-1} V_columns + t²_{R-1} max(V_rows - V_cells, 0)``: each source enters with the
    quantile of its own number of units, and what the cells do alone is counted once.
    (A crossed bootstrap counts it three times: Owen, The Pigeonhole Bootstrap, Annals of
    Applied Statistics 1 (2007) 386-411.)

    Args:
        cells: Contribution of each row (rater, seed) and column (caption) to the estimate's
            deviation from the truth, ``[R, G]``, as from ``parts``.
        residuals: Contributions without what row and column explain, of which ``V_cells`` is
            the sum of squares; ``cells`` themselves where most of them are empty.

    Returns:
        In squared units of the estimate; infinite with one column.
    """
    rows, columns = cells.shape
    if columns < 2:
        return math.inf
    squared = quantile_squared(columns) * _variance(cells.sum(axis=0))
    if rows > 1:
        alone = float(np.square(cells if residuals is None else residuals).sum())
        own = max(_variance(cells.sum(axis=1)) - alone, 0.0)
        squared += quantile_squared(rows) * own
    return squared


def bounded(
    estimate: float, squared: float, *, most: float = math.inf, units: int
) -> tuple[float, float]:
    """Return the ends of a score interval of a mean count in [0, most].

    Those u with ``(estimate - u)² <= squared · v(u) / v(estimate)``, ``v(u) = u (1 - u/most)``:
    the variance grows from 0 to both sides as that of counts does. Where no image differs from
    another, ``squared`` says nothing, and that of one count a unit takes its place.

    Args:
        estimate: The mean.
        squared: From ``squared_margin``.
        most: Largest count of one image.
        units: Independent units behind the mean.
    """
    if squared == math.inf:
        return 0.0, most
    scale = 1 / most  # 0 without an upper end
    worth = estimate * (1 - estimate * scale)
    ratio = squared / worth if squared and worth > 0 else quantile_squared(units) / units
    middle = estimate + ratio / 2
    spread = math.sqrt(max(middle**2 - (1 + ratio * scale) * estimate**2, 0.0))
    low, high = ((middle + sign * spread) / (1 + ratio * scale) for sign in (-1, 1))
    # Rounding would leave 1e-17 where the formula says 0, and the mean outside at the ends.
    return (0.0 if estimate == 0 else low), (most if estimate == most else high)


def quantile_squared(count: int) -> float:
    """Return the square of Student's 97.5% quantile with ``count - 1`` degrees of freedom."""
    return float(special.stdtrit(count - 1, (1 + LEVEL) / 2)) ** 2 if count > 1 else math.inf


def _numbers(values: ArrayLike) -> Numbers:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(f"one finite number an image, at least one; got {numbers!r}")
    return numbers


def _pair(values: ArrayLike, reference: ArrayLike) -> tuple[Numbers, Numbers]:
    ours, theirs = _numbers(values), _numbers(reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"paired values {ours.shape} and reference {theirs.shape} differ")
    return ours, theirs


def _labels(names: ArrayLike) -> NDArray[np.int64]:
    """Names as numbers from 0."""
    return np.unique(np.asarray(names), return_inverse=True)[1].ravel().astype(np.int64)


def _variance(sums: Numbers) -> float:
    return float(len(sums) / (len(sums) - 1) * (sums @ sums))
