"""Numbers of a study: several trainings, the same prompts, paired.

Shapes: ``S`` training seeds, ``P`` prompts, ``G`` different captions. A cell is what one
training's picture of one prompt scored; every method has the same cells.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atelier.metrics import statistics
from atelier.metrics.statistics import Interval, Numbers


def crossed_count(cells: ArrayLike, captions: Sequence[str], *, most: int) -> Interval:
    """Return the mean count over seeds and prompts, with its interval over both.

    The interval says how far the mean may be off because only these trainings were made and
    only these captions were painted. Each source enters with Student's quantile of its own
    number of units (``statistics.squared_margin``), so that few seeds make it wide where seeds
    matter. With one seed it is about captions alone.

    Args:
        cells: One count a training and prompt, ``[S, P]``.
        captions: Of each prompt, ``[P]``; equal ones are one unit.
        most: Largest count that a picture can have.

    Raises:
        ValueError: ``cells`` is empty, not two-dimensional, or not finite; or has another
            number of prompts.
    """
    numbers = _cells(cells)
    center = float(numbers.mean())
    squared, units = _squared(numbers, captions), len(set(captions))
    low, high = statistics.bounded(center, squared, most=most, units=units)
    return Interval(center, low, high, numbers.size)


def crossed_difference(
    cells: ArrayLike, reference: ArrayLike, captions: Sequence[str]
) -> Interval:
    """Return ``mean(cells - reference)`` with its interval, paired over seeds and prompts.

    Raises:
        ValueError: The shapes differ, or as for ``crossed_count``.
    """
    ours, theirs = _cells(cells), _cells(reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"paired cells {ours.shape} and {theirs.shape} differ")
    numbers = ours - theirs
    center, half = float(numbers.mean()), math.sqrt(_squared(numbers, captions))
    return Interval(center, center - half, center + half, numbers.size)


def _squared(numbers: Numbers, captions: Sequence[str]) -> float:
    """Square of half the interval's width: seeds crossed with captions."""
    seeds, prompts = numbers.shape
    if len(captions) != prompts:
        raise ValueError(f"{len(captions)} captions of {prompts} prompts")
    of = np.unique(captions, return_inverse=True)[1]
    member = np.eye(int(of.max()) + 1)[of] / numbers.size  # [P, G]
    center = numbers.mean()
    cells = (numbers - center) @ member
    alone = numbers - numbers.mean(axis=1, keepdims=True) - numbers.mean(axis=0) + center
    groups = cells.shape[1]
    if seeds < 2 or groups < 2:
        return statistics.squared_margin(cells)
    # What rows and columns took from the residuals is given back.
    scale = math.sqrt(seeds / (seeds - 1) * groups / (groups - 1))
    return statistics.squared_margin(cells, scale * alone @ member)


def first_below(curve: dict[int, float], level: float) -> int | None:
    """Return the fewest steps after which a method is at ``level`` or below; None: never.

    Args:
        curve: What runs of so many steps ended with.
        level: What is to be reached.
    """
    there = [steps for steps, value in sorted(curve.items()) if value <= level]
    return there[0] if there else None


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Return the area that a front dominates inside of a reference point.

    Both coordinates are better when they are smaller. A point dominates what is worse in both;
    points beyond the reference dominate nothing. (With one coordinate's sign turned, it serves
    for what is better when larger.)

    References:
        Zitzler & Thiele, Multiobjective Evolutionary Algorithms: A Comparative Case Study and
        the Strength Pareto Approach, IEEE Transactions on Evolutionary Computation 3 (1999).
    """
    area, across = 0.0, reference[1]
    for first, second in sorted(points):
        if first < reference[0] and second < across:
            area += (reference[0] - first) * (across - second)
            across = second
    return area


def jackknife(values: ArrayLike, count: int) -> Interval:
    """Return a statistic with its interval over captions, each left out in turn.

    ``v ± t_{G-1} s`` with ``s² = (G-1)/G Σ_g (v_g - mean)²``: for a mean with one picture a
    caption this is Student's interval. For numbers that are no means of pictures: FID,
    diversity, the area under a front.

    Args:
        values: With all captions, and without each one, ``[1 + G]``.
        count: Pictures behind it.

    Raises:
        ValueError: There are fewer than two captions, or a value is not finite.

    References:
        Efron & Stein, The Jackknife Estimate of Variance, Annals of Statistics 9 (1981).
    """
    numbers = np.asarray(values, dtype=np.float64)
    groups = len(numbers) - 1
    if groups < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"finite values with and without each of two captions; got {numbers}")
    apart = numbers[1:] - numbers[1:].mean()
    squared = (groups - 1) / groups * float(apart @ apart)
    half = math.sqrt(statistics.quantile_squared(groups) * squared)
    estimate = float(numbers[0])
    return Interval(estimate, estimate - half, estimate + half, count)


def without_each(captions: Sequence[str]) -> list[NDArray[np.bool_]]:
    """Return which prompts are left: all, then all but those of each caption, ``1 + G``."""
    texts = np.array(captions)
    return [np.ones(len(texts), bool), *(texts != one for one in dict.fromkeys(captions))]


def _cells(cells: ArrayLike) -> Numbers:
    numbers = np.asarray(cells, dtype=np.float64)
    if numbers.ndim != 2 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"one finite number a seed and prompt; got shape {numbers.shape}")
    return numbers
