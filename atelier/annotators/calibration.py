"""Where thresholds of measures should lie, from what measures say of many pictures.

A pole is spoken for where a picture stands out among its like: beyond the outermost share of
the values on either side. Between the two the annotator abstains. Thresholds that a physical
meaning fixes are kept by the author of the criteria file.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from atelier import images
from atelier.annotators import measured
from atelier.criteria.annotations import Quarantined
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import Measure, Tree
from atelier.errors import ImageError

FEWEST = 20  # values from which a quantile may be taken
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """What the measures say of one picture; NaN where they are silent.

    Attributes:
        file: Path inside the folder.
        values: The number of each criterion that the caption does not rule out, by path.
    """

    file: str
    values: dict[str, float]


@dataclass(frozen=True)
class Reader:
    """Reads pictures and measures them. It is sent to other processes.

    Attributes:
        folder: Where the pictures lie.
        tree: The criteria.
        pixels: Side of the middle square that is measured; smaller pictures keep their size.
        largest_pixels: Pictures of more pixels are set aside unread.
    """

    folder: Path
    tree: Tree
    pixels: int
    largest_pixels: int

    def __call__(self, entry: Entry) -> Reading | Quarantined:
        """Measure one picture."""
        try:
            picture = images.read(self.folder / entry.file, self.largest_pixels)
        except ImageError as error:
            return Quarantined(file=entry.file, reason=str(error))
        square = images.square(picture, min(self.pixels, *picture.size))
        within = self.tree.conceivable(entry.caption)
        values = measured.values(square, self.tree)
        return Reading(entry.file, {path: v for path, v in values.items() if path in within})


@dataclass(frozen=True)
class Standing:
    """How one pair's measure stands over many pictures.

    Attributes:
        path: The criterion.
        measure: Its measure and thresholds.
        pictures: How many there are.
        values: Of the pictures for which it says a number, in their order.
        files: Those pictures.
    """

    path: str
    measure: Measure
    pictures: int
    values: Array
    files: list[str]

    def share(self, pole: str | None) -> float:
        """Return the share of all pictures that get this pole; None for those of neither."""
        said = sum(self.measure.pole(value) is not None for value in self.values)
        if pole is None:
            return 1 - said / self.pictures
        return sum(self.measure.pole(v) == pole for v in self.values) / self.pictures

    def ranked(self) -> list[tuple[str, float]]:
        """Return files and values, the most positive first."""
        sign = -1 if self.measure.positive_at > self.measure.negative_at else 1
        order = np.argsort(sign * self.values, kind="stable")
        return [(self.files[i], float(self.values[i])) for i in order]

    def proposal(self, outermost: float) -> Measure | None:
        """Return thresholds beyond which ``outermost`` of the values lie on either side.

        None where there are too few values, or too many equal ones, to tell the two apart.
        """
        if len(self.values) < FEWEST:
            return None
        low, high = (_rounded(float(q)) for q in self._outer(outermost))
        if low == high:
            return None
        rising = self.measure.positive_at > self.measure.negative_at
        positive, negative = (high, low) if rising else (low, high)
        return Measure(name=self.measure.name, positive_at=positive, negative_at=negative)

    def _outer(self, outermost: float) -> Array:
        return np.quantile(self.values, (outermost, 1 - outermost))


def standings(readings: Sequence[Reading], tree: Tree) -> list[Standing]:
    """Return how each pair with a measure stands, in the order of the tree."""
    found = []
    for path, measure in measured.measured(tree).items():
        said = [(r.values[path], r.file) for r in readings if path in r.values]
        said = [(value, file) for value, file in said if not math.isnan(value)]
        values = np.array([value for value, _ in said])
        files = [file for _, file in said]
        found.append(Standing(path, measure, len(readings), values, files))
    return found


def redundancies(
    readings: Sequence[Reading], paths: Sequence[str], least: float
) -> Iterator[tuple[str, str, float]]:
    """Yield pairs of criteria whose measures rank pictures nearly alike, strongest first.

    Spearman's rank correlation over the pictures that both speak of, ``FEWEST`` at least.

    Args:
        readings: What was measured.
        paths: The criteria to compare.
        least: Absolute correlation from which a pair is told.
    """
    columns = {path: _column(readings, path) for path in paths}
    found = []
    for index, first in enumerate(paths):
        for second in paths[index + 1 :]:
            rho = _rank_correlation(columns[first], columns[second])
            if abs(rho) >= least:
                found.append((first, second, rho))
    yield from sorted(found, key=lambda one: -abs(one[2]))


def _column(readings: Sequence[Reading], path: str) -> Array:
    empty: Mapping[str, float] = {path: math.nan}
    return np.array([(r.values if path in r.values else empty)[path] for r in readings])


def _rank_correlation(first: Array, second: Array) -> float:
    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < FEWEST or np.ptp(first[both]) == 0 or np.ptp(second[both]) == 0:
        return 0.0
    return float(stats.spearmanr(first[both], second[both]).statistic)


def _rounded(value: float) -> float:
    """Three significant digits, as a person would write it."""
    return float(f"{value:.3g}")
