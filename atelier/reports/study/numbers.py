"""Numbers of a study: several trainings, the same prompts, paired.

Shapes: ``S`` training seeds, ``P`` prompts, ``G`` different captions. A cell is what one
training's picture of one prompt scored; every method has the same cells.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

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


def sweet_spot(values: dict[float, float]) -> bool:
    """Say whether the least value lies strictly inside of the range that was tried."""
    order = sorted(values)
    best = min(order, key=lambda strength: values[strength])
    return len(order) > 2 and best not in (order[0], order[-1])


def _cells(cells: ArrayLike) -> Numbers:
    numbers = np.asarray(cells, dtype=np.float64)
    if numbers.ndim != 2 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"one finite number a seed and prompt; got shape {numbers.shape}")
    return numbers
