"""Statistics of metrics: bootstrap and Wilson intervals, paired differences, win rates.

Shapes: ``N`` images, ``R`` resamples. Every interval covers the choice of images (the prompts)
only. Another training seed also changes the numbers; only repeated trainings show by how much.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95  # coverage of every interval
_NORMAL_QUANTILE = 1.959963984540054  # of (1 + LEVEL) / 2
_CHUNK = 4_000_000  # resampled values in memory at once


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


def mean(values: ArrayLike, *, resamples: int, seed: int) -> Interval:
    """Return the mean with its bootstrap percentile interval.

    ``[q_{0.025}, q_{0.975}]`` of ``mean(x_{i_1}, …, x_{i_N})``, where each ``i`` is drawn
    from ``1 … N`` with replacement, R times.

    Args:
        values: One number an image, ``[N]``, finite.
        resamples: R; 2,000 and more give stable ends.
        seed: Same seed, same interval.

    Returns:
        The mean and its interval, in the unit of ``values``.

    Raises:
        ValueError: ``values`` is empty, not one-dimensional, or not finite.

    References:
        Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    numbers = _numbers(values)
    means = _resampled_means(numbers, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), len(numbers))


def difference(
    values: ArrayLike, reference: ArrayLike, *, resamples: int, seed: int
) -> Interval:
    """Return ``mean(values - reference)``, paired, with its bootstrap interval.

    Both were measured on the same prompts and noise, so an image is resampled together with
    its partner: what the prompt itself does cancels, and the interval is narrower than that
    of two separate means.

    Args:
        values: One number an image, ``[N]``.
        reference: The partner of each, ``[N]``.
        resamples: As for ``mean``.
        seed: As for ``mean``.

    Raises:
        ValueError: The shapes differ, or as for ``mean``.
    """
    ours, theirs = _numbers(values), _numbers(reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"paired values {ours.shape} and reference {theirs.shape} differ")
    return mean(ours - theirs, resamples=resamples, seed=seed)


def share(hits: int, count: int) -> Interval:
    """Return ``hits / count`` with Wilson's score interval.

    ``(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)`` with ``p = hits/n``: unlike
    ``p ± z √(p(1-p)/n)`` it stays inside [0, 1] and keeps a width at 0 and at 1.

    Raises:
        ValueError: Not ``0 <= hits <= count``, or ``count`` is 0.

    References:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
        JASA 22 (1927) 209-212. Brown, Cai & DasGupta, Statistical Science 16 (2001), Eq. 4.
    """
    if not 0 <= hits <= count or count == 0:
        raise ValueError(f"{hits} of {count} is no share")
    z2, p = _NORMAL_QUANTILE**2, hits / count
    middle = p + z2 / (2 * count)
    half = _NORMAL_QUANTILE * (p * (1 - p) / count + z2 / (4 * count**2)) ** 0.5
    scale = 1 + z2 / count
    low, high = (middle - half) / scale, (middle + half) / scale
    # Rounding would leave 1e-17 where the formula says 0, and the share outside at the ends.
    return Interval(p, 0.0 if hits == 0 else low, 1.0 if hits == count else high, count)


def wins(values: ArrayLike, reference: ArrayLike) -> Interval | None:
    """Return the share of pairs in which the value is the larger, with Wilson's interval.

    Pairs that are equal say nothing and are left out, as in a sign test.

    Args:
        values: One number an image, ``[N]``.
        reference: The partner of each, ``[N]``.

    Returns:
        Share in [0, 1] of the pairs that differ; None if none does.

    Raises:
        ValueError: As for ``difference``.
    """
    ours, theirs = _numbers(values), _numbers(reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"paired values {ours.shape} and reference {theirs.shape} differ")
    differing = int((ours != theirs).sum())
    return share(int((ours > theirs).sum()), differing) if differing else None


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(f"one finite number an image, at least one; got {numbers!r}")
    return numbers


def _resampled_means(
    numbers: NDArray[np.float64], resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Means of ``resamples`` draws with replacement, ``[R]``."""
    rows = max(1, _CHUNK // len(numbers))
    return np.concatenate(
        [
            numbers[
                generator.integers(
                    len(numbers), size=(min(rows, resamples - start), len(numbers))
                )
            ].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
