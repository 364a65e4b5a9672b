"""Numbers of a study: several trainings, the same prompts, paired.

Shapes: ``S`` training seeds, ``P`` prompts, ``R`` resamples. A cell is what one training's
picture of one prompt scored; every method has the same cells.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atelier.metrics.statistics import LEVEL, Interval


def crossed_mean(cells: ArrayLike, *, resamples: int, seed: int) -> Interval:
    """Return the mean over seeds and prompts with its crossed bootstrap interval.

    Both seeds and prompts are drawn with replacement, independently, and a resample's value is
    the mean over all drawn cells: the interval says how far the number may be off because only
    these trainings were made and only these prompts were painted. With three seeds it is rough
    about seeds; it is never narrower than it would be if they did not matter.

    Args:
        cells: One number a training and prompt, ``[S, P]``, finite.
        resamples: R.
        seed: Same seed, same interval.

    Raises:
        ValueError: ``cells`` is empty, not two-dimensional, or not finite.

    References:
        Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007) 386-411.
    """
    numbers = _cells(cells)
    trainings, prompts = numbers.shape
    source = np.random.default_rng(seed)
    rows = source.multinomial(trainings, [1 / trainings] * trainings, resamples) / trainings
    columns = source.multinomial(prompts, [1 / prompts] * prompts, resamples) / prompts
    means = np.einsum("rs,sp,rp->r", rows, numbers, columns, optimize=True)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), numbers.size)


def crossed_difference(
    cells: ArrayLike, reference: ArrayLike, *, resamples: int, seed: int
) -> Interval:
    """Return ``mean(cells - reference)`` with its interval, paired over seeds and prompts.

    Raises:
        ValueError: The shapes differ, or as for ``crossed_mean``.
    """
    ours, theirs = _cells(cells), _cells(reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"paired cells {ours.shape} and {theirs.shape} differ")
    return crossed_mean(ours - theirs, resamples=resamples, seed=seed)


def first_below(curve: dict[int, float], level: float) -> int | None:
    """Return the fewest steps after which a method is at ``level`` or below; None: never.

    Args:
        curve: What runs of so many steps ended with.
        level: What is to be reached.
    """
    there = [steps for steps, value in sorted(curve.items()) if value <= level]
    return there[0] if there else None


def sweet_spot(values: dict[float, float]) -> bool:
    """Say whether the least value lies strictly inside of the range that was tried."""
    order = sorted(values)
    best = min(order, key=lambda strength: values[strength])
    return len(order) > 2 and best not in (order[0], order[-1])


def _cells(cells: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(cells, dtype=np.float64)
    if numbers.ndim != 2 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"one finite number a seed and prompt; got shape {numbers.shape}")
    return numbers
