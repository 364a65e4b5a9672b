"""Conflicts between criteria: the angle between their directions at one noisy latent.

Shapes: ``A`` criteria of one image, ``...`` the latent's dimensions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from atelier.metrics import statistics
from atelier.metrics.statistics import Interval

Pair = tuple[str, str]  # two criteria, in the order of the tree


@dataclass(frozen=True)
class Met:
    """What two criteria ask of the images in which both are active.

    Attributes:
        pair: The two.
        cosine: Mean over images, with its interval over captions.
        fights: Whether the whole interval is below 0.
    """

    pair: Pair
    cosine: Interval
    fights: bool


def cosines(good: Tensor, bad: Tensor) -> Tensor:
    """Return the cosine between the directions of every two criteria, ``[A, A]``.

    A criterion's direction is what its good pole adds to the teacher's prediction over its bad
    one, ``f(x_t, y and good) - f(x_t, y and bad)``: where CPO would push for it alone. Prompts
    that name all push along about their sum, so of a pair with a negative cosine each takes
    back part of what the other asks for. (Ours.)

    Args:
        good: Predictions under each criterion's good pole, ``[A, ...]``.
        bad: Under its bad pole, ``[A, ...]``.

    Returns:
        Cosines in [-1, 1], float64; 0 with a direction of no length.

    Raises:
        ValueError: The shapes differ.
    """
    if good.shape != bad.shape:
        raise ValueError(f"good {tuple(good.shape)} and bad {tuple(bad.shape)} differ")
    unit = torch.nn.functional.normalize((good - bad).flatten(1).double(), dim=1)
    return unit @ unit.T


def met(
    found: Iterable[Mapping[Pair, float]], captions: Iterable[str], *, least: int
) -> list[Met]:
    """Return every pair that met in enough images, those that disagree most first.

    Args:
        found: Of each image, the mean cosine of its pairs.
        captions: Of each image; the units of the intervals.
        least: Images in which a pair must have met; they need two different captions.
    """
    by_pair: dict[Pair, list[tuple[float, str]]] = {}
    for image, caption in zip(found, captions, strict=True):
        for pair, cosine in image.items():
            by_pair.setdefault(pair, []).append((cosine, caption))
    rows = []
    for pair, cosines_met in by_pair.items():
        values, of = zip(*cosines_met, strict=True)
        if len(values) >= least and len(set(of)) > 1:
            interval = statistics.mean(values, of)
            rows.append(Met(pair, interval, interval.high < 0))
    return sorted(rows, key=lambda row: row.cosine.estimate)


def heat_map(rows: Sequence[Met], criteria: Sequence[str]) -> Any:
    """Return a matplotlib figure of the mean cosines; grey where a pair did not meet."""
    from matplotlib.figure import Figure

    place = {path: number for number, path in enumerate(criteria)}
    grid = np.full((len(criteria), len(criteria)), np.nan)
    for row in rows:
        one, other = (place[path] for path in row.pair)
        grid[one, other] = grid[other, one] = row.cosine.estimate
    side = max(4.0, 0.32 * len(criteria) + 2.5)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#dddddd")
    largest = float(np.nanmax(np.abs(grid))) if np.isfinite(grid).any() else 1.0
    drawn = axes.imshow(grid, cmap="RdBu", vmin=-largest, vmax=largest)
    if len(criteria) <= 12:
        for (one, other), value in np.ndenumerate(grid):
            if np.isfinite(value):
                strong = abs(value) > 0.6 * largest
                axes.text(other, one, f"{value:.2f}", ha="center", va="center", fontsize=8,
                          color="white" if strong else "black")  # fmt: skip
    axes.set_xticks(range(len(criteria)), criteria, rotation=90)
    axes.set_yticks(range(len(criteria)), criteria)
    axes.set_title("cosine of the criteria's directions; red ones fight")
    figure.colorbar(drawn, ax=axes, shrink=0.7)
    return figure
