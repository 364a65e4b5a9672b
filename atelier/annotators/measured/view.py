"""One picture and what several measures need of it, each computed once.

Pictures are measured at fixed sizes, so that a number means the same for every file: 128
pixels on the longer side for colours, values and edges, a half and a quarter of that for
areas, and 256 for the marks of the brush, which 128 would blur away.

``lab``, ``light``, ``calm`` and ``blurred`` are of the whole picture; all else is of its
inside, without the outermost twentieth, where frames and the edges of scans are.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import xyz_tristimulus_values
from skimage.color.colorconv import xyz_from_rgb

Array = NDArray[np.float64]
Plane = NDArray[np.float32]  # [H, W]

WORKING_PIXELS = (
    128  # longer side at which pictures are measured; scales below are at this size
)
MARK_PIXELS = 256  # longer side at which the marks of the brush are measured
_RESOLVED = 0.75  # of MARK_PIXELS that a picture needs, or its marks are not in it
_MARGIN = 0.05  # of each side that is no part of the inside
_NEXT = 0.866  # blur that doubles one of a pixel, at half the size
_BINS = 64  # of the histogram from which Otsu's thresholds are taken
_FAINT_EDGE = 0.1  # L* a pixel, after blur, below which a picture has no edges
_FAINT_SALIENCE = 4.0  # Lab units below which nothing stands out
_WARMEST = math.radians(55)  # hue angle of orange, the warm pole (Itten); blue is opposite
_BYTE = np.arange(256) / 255.0
_LINEAR = np.where(_BYTE > 0.04045, ((_BYTE + 0.055) / 1.055) ** 2.4, _BYTE / 12.92)  # sRGB
_WHITE = np.asarray(xyz_tristimulus_values(illuminant="D65", observer="2"))
_PAIRS = np.triu_indices(_BINS + 1, 1)
_LEAST_SPAN = 1.0  # L* between the darkest and the lightest mass, below which all is one


@dataclass(frozen=True)
class Bands:
    """Ground under a sky, as rows: far just below the middle, near at the foot."""

    sky: slice
    far: slice
    near: slice


def bands(rows: int) -> Bands:
    """The bands of a picture of so many rows."""
    return Bands(
        slice(0, round(0.3 * rows)),
        slice(round(0.48 * rows), round(0.62 * rows)),
        slice(round(0.88 * rows), rows),
    )


@dataclass(frozen=True)
class Regions:
    """The connected areas of one value step.

    Attributes:
        labels: Number of the region at each place, ``[H, W]``, from 0.
        areas: Share of the picture that each covers, largest first is not promised, ``[N]``.
        steps: Value step of each, 0 dark, 1 middle, 2 light, ``[N]``.
    """

    labels: NDArray[np.int64]
    areas: Array
    steps: NDArray[np.int64]


class View:
    """One picture, in the quantities that measures share.

    Attributes:
        lab: CIE L*a*b* (D65), ``[H, W, 3]``; L* in [0, 100].
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels
        self._image = Image.fromarray(pixels)
        height, width, _ = pixels.shape
        if max(height, width) != WORKING_PIXELS or min(height, width) < WORKING_PIXELS // 4:
            pixels = np.asarray(_shrunk(self._image, WORKING_PIXELS))
        self.lab: Array = _lab(pixels)
        self._blurred: dict[float, Array] = {}

    @cached_property
    def light(self) -> Array:
        """L*, ``[H, W]``."""
        return self.lab[..., 0]

    @cached_property
    def calm(self) -> Array:
        """The masses without the marks: Lab blurred over 2 pixels, ``[H, W, 3]``."""
        return self.blurred(2.0)

    @cached_property
    def value_range(self) -> float:
        """How far the 2nd and 98th percentile of the masses' L* are apart."""
        return self.calm_lights.at(98) - self.calm_lights.at(2)

    @cached_property
    def calm_lights(self) -> "Ranked":
        """L* of all masses, in order."""
        return Ranked(self.calm[..., 0])

    def blurred(self, sigma: float) -> Array:
        """Lab under a Gaussian of ``sigma`` pixels, ``[H, W, 3]``."""
        if sigma not in self._blurred:
            self._blurred[sigma] = np.asarray(
                ndimage.gaussian_filter(self.lab, (sigma, sigma, 0), mode="nearest")
            )
        return self._blurred[sigma]

    @cached_property
    def small(self) -> Plane:
        """Lab at half the working size, ``[H, W, 3]``."""
        return halved(np.asarray(inside(self.lab), np.float32))

    @cached_property
    def value(self) -> Plane:
        """L* at half the working size, ``[H, W]``."""
        return np.ascontiguousarray(self.small[..., 0])

    @cached_property
    def values(self) -> "Ranked":
        """All of ``value``, in order."""
        return Ranked(self.value)

    @cached_property
    def value_deviation(self) -> float:
        """Standard deviation of ``value``."""
        return float(self.value.std())

    @cached_property
    def local_value_deviation(self) -> Plane:
        """Standard deviation of ``value`` in the 5 x 5 places around each place."""
        return local_deviation(self.value, 5)

    @cached_property
    def middle_value_deviation(self) -> float:
        """Median of ``local_value_deviation``."""
        return float(np.median(self.local_value_deviation))

    @cached_property
    def chroma(self) -> Plane:
        """CIE chroma at half the working size, ``[H, W]``."""
        return np.asarray(np.hypot(self.small[..., 1], self.small[..., 2]))

    @cached_property
    def chromas(self) -> "Ranked":
        """All of ``chroma``, in order."""
        return Ranked(self.chroma)

    @cached_property
    def mean_chroma(self) -> float:
        """Mean of ``chroma``."""
        return float(self.chroma.mean())

    @cached_property
    def warmth(self) -> Plane:
        """The part of the colour that points to orange, 55 degrees, in Lab units."""
        return np.asarray(self.chroma * np.cos(self.hue - np.float32(_WARMEST)))

    @cached_property
    def hue(self) -> Plane:
        """CIE hue angle at half the working size, radians in [-pi, pi], ``[H, W]``."""
        return np.asarray(np.arctan2(self.small[..., 2], self.small[..., 1]))

    @cached_property
    def hue_degrees(self) -> Plane:
        """``hue`` in degrees, in [-180, 180]."""
        return np.asarray(np.degrees(self.hue))

    @cached_property
    def hues(self) -> Array:
        """Chroma in each of 36 sectors of 10 degrees, a mean over the picture, ``[36]``."""
        sectors = np.floor(self.hue_degrees / 10).astype(int) % 36
        sums = np.bincount(sectors.ravel(), weights=self.chroma.ravel(), minlength=36)
        return np.asarray(sums / self.chroma.size)

    @cached_property
    def coarse(self) -> Plane:
        """Lab at a quarter of the working size, ``[H, W, 3]``."""
        return halved(self.small)

    @cached_property
    def gradient(self) -> tuple[Plane, Plane]:
        """Gradient of L* after a blur of 1 pixel, down and across, in L* a pixel."""
        light = blurred(np.asarray(self.light, np.float32), 1.0, truncate=4.0)
        down, across = np.gradient(inside(light))
        return down, across

    @cached_property
    def steepness(self) -> Plane:
        """Length of ``gradient``, ``[H, W]``."""
        return np.asarray(np.hypot(*self.gradient))

    @cached_property
    def mean_steepness(self) -> float:
        """Mean of ``steepness``."""
        return float(self.steepness.mean())

    @cached_property
    def directions(self) -> tuple[complex, complex]:
        """Mean of exp(2i angle) and exp(4i angle) of the edges, weighted by their steepness.

        The first is 1 in length where all edges run one way; the second where they run one
        way or across it. Zero for a picture without edges.
        """
        edge = self.gradient[1] + 1j * self.gradient[0]
        weight = np.where(self.steepness > 1.0, self.steepness, 0)
        unit = (edge / np.maximum(self.steepness, 1e-6)) ** 2
        total = max(float(weight.sum()), 1e-9)
        return complex((weight * unit).sum() / total), complex((weight * unit**2).sum() / total)

    @cached_property
    def busyness(self) -> Plane:
        """Mean steepness of an 8 x 8 grid of fields, in L* a pixel, ``[8, 8]``."""
        return gridded(self.steepness)

    @cached_property
    def salience(self) -> Plane:
        """How much each place differs from its surroundings, in Lab units, ``[H, W]``.

        Centre against surround on the coarse picture (Itti, Koch and Niebur, 1998), faded
        at the border, where there is no surround.
        """
        scale = max(self.coarse.shape) / 28
        planes = np.ascontiguousarray(self.coarse.transpose(2, 0, 1))
        centre, surround = (blurred(planes, s * scale, truncate=4.0) for s in (1.0, 7.0))
        return np.asarray(np.sqrt(((centre - surround) ** 2).sum(axis=0)))

    @cached_property
    def saliences(self) -> "Ranked":
        """All of ``salience``, in order."""
        return Ranked(self.salience)

    @cached_property
    def focus(self) -> tuple[Plane, int, int]:
        """The blurred salience, and row and column of its maximum."""
        scale = max(self.salience.shape) / 28
        smooth = blurred(self.salience, 1.5 * scale, truncate=4.0)
        row, column = np.unravel_index(int(np.argmax(smooth)), smooth.shape)
        return smooth, int(row), int(column)

    @cached_property
    def stands_out(self) -> bool:
        """Whether anything does: the 98th percentile of the salience is at least 4."""
        return self.saliences.at(98) >= _FAINT_SALIENCE

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """Value step of each place of a small picture, 0 dark, 1 middle, 2 light, ``[H, W]``.

        Otsu's two thresholds on the masses (Dow's notan of three tones).
        """
        calm = halved(np.asarray(inside(self.calm)[..., 0], np.float32))
        if np.ptp(calm) < _LEAST_SPAN:
            return np.zeros(calm.shape, np.int64)
        return np.digitize(calm, thresholds(calm))

    @cached_property
    def regions(self) -> Regions:
        """The connected areas of ``steps``."""
        labels = np.zeros(self.steps.shape, np.int64)
        count, steps = 0, []
        for step in range(3):
            found, number = ndimage.label(self.steps == step)
            np.add(found, count - 1, out=labels, where=found > 0)
            count += number
            steps += [step] * number
        areas = np.bincount(labels.ravel(), minlength=count) / labels.size
        return Regions(labels, areas, np.array(steps))

    @cached_property
    def ground(self) -> Bands | None:
        """The bands of a view with sky over ground, or None where none is seen.

        The top should be lighter than the foot on the left, in the middle and on the right.
        """
        light = self.calm[..., 0]
        rows = bands(len(light))
        span = max(self.value_range, 1e-6)
        for columns in np.array_split(light, 5, axis=1)[::2]:
            sky, near = np.median(columns[rows.sky]), np.median(columns[rows.near])
            if float(sky) - float(near) < 0.2 * span:
                return None
        return rows

    @cached_property
    def calm_sky(self) -> bool:
        """Whether ``ground`` is seen and the sky over it is at most half as busy."""
        rows = bands(len(self.steepness))
        sky, rest = self.steepness[rows.sky], self.steepness[rows.sky.stop :]
        calm = float(sky.mean()) < 0.5 * float(rest.mean())
        return bool(calm and self.ground is not None)

    @property
    def enlarged(self) -> bool:
        """Whether the picture has fewer pixels than it is measured at, which blurs edges."""
        return bool(max(self._pixels.shape[:2]) < WORKING_PIXELS)

    @cached_property
    def marks(self) -> Plane | None:
        """Lightness at ``MARK_PIXELS``, 0 to 100, or None for a picture that is smaller."""
        longest, shortest = max(self._pixels.shape[:2]), min(self._pixels.shape[:2])
        if longest < _RESOLVED * MARK_PIXELS or shortest < MARK_PIXELS // 4:
            return None
        grey = np.asarray(_shrunk(self._image.convert("L"), MARK_PIXELS))
        return inside(np.asarray(grey, np.float32)) * np.float32(100 / 255)

    @cached_property
    def soft_marks(self) -> Plane | None:
        """``marks`` after a blur of 1 pixel."""
        return None if self.marks is None else _soft(self.marks, 1.0)

    @cached_property
    def grain(self) -> tuple[Plane, Plane, Plane] | None:
        """The marks by their size: what lies between blurs of 0, 1, 2 and 4 pixels.

        Three planes, finest first, each half the size of the former (a Laplacian pyramid:
        Burt and Adelson, 1983), or None where the marks are not resolved.
        """
        if self.marks is None or self.soft_marks is None:
            return None
        soft = self.soft_marks
        half = halved(soft)
        softer = _soft(half, _NEXT)
        quarter = halved(softer)
        return self.marks - soft, half - softer, quarter - _soft(quarter, _NEXT)

    @cached_property
    def strengths(self) -> tuple[Plane, Plane, Plane] | None:
        """Mean size of the marks of each scale of ``grain`` in 8 x 8 fields, ``[8, 8]`` each.

        None where there are no marks.
        """
        if self.grain is None:
            return None
        fine, middle, coarse = (gridded(np.abs(scale)) for scale in self.grain)
        there = float(fine.mean()) + float(middle.mean()) + float(coarse.mean()) > 0.05
        return (fine, middle, coarse) if there else None

    @cached_property
    def crests(self) -> Plane | None:
        """Fine over coarse steepness on the crests of the strong edges; None without edges.

        L* is blurred over 1.5 and over 4.5 pixels.
        """
        light = np.asarray(self.light, np.float32)
        coarse = np.hypot(*np.gradient(_soft(light, 4.5)))
        # Crests are sought before the border is cut off: a slope that ends there is no crest.
        crest = inside(coarse >= 0.97 * largest_around(coarse, 7))
        coarse = inside(coarse)
        least = Ranked(coarse).at(90)
        if least < _FAINT_EDGE:
            return None
        crest &= coarse >= least
        slopes = np.gradient(_soft(light, 1.5))
        fine = np.hypot(*(inside(np.asarray(slope))[crest] for slope in slopes))
        return np.asarray(fine / coarse[crest])

    @cached_property
    def rivalry(self) -> float:
        """The blurred salience's second maximum over its first, NaN where nothing stands out.

        The second lies at least 0.3 of the longer side away.
        """
        if not self.stands_out:
            return math.nan
        smooth, row, column = self.focus
        rows, columns = places(smooth.shape)
        away = np.hypot(rows - row, columns - column) >= 0.3 * max(smooth.shape)
        return float(smooth[away].max() / smooth[row, column])

    @cached_property
    def strokes(self) -> Plane | None:
        """The marks of 1 to 4 pixels at half their size, or None where there are none."""
        if self.soft_marks is None:
            return None
        half = halved(self.soft_marks)
        strokes = half - _soft(half, 1.94)  # 4 pixels in all
        return strokes if float(np.abs(strokes).mean()) > 0.05 else None


def coherence(plane: Plane, side: int) -> tuple[NDArray[np.complex64], Plane]:
    """Structure tensor in squares of ``side``: difference and cross terms, and the energy.

    Gradients are cut at their median, so that no outline outweighs the marks.

    Returns:
        exp(2i angle of the gradient) weighted by energy, and the energy, at every other place.
    """
    down, across = np.gradient(plane)
    size = np.hypot(down, across)
    cut = np.maximum(size, max(float(np.median(size)), 1e-6))
    down, across = down / cut, across / cut
    xx, yy, xy = (
        ndimage.uniform_filter(halved(part), side // 2, mode="nearest")
        for part in (across * across, down * down, across * down)
    )
    return np.asarray(xx - yy + 2j * xy, np.complex64), np.asarray(xx + yy)


def largest_around(plane: Plane, side: int) -> Plane:
    """Maximum of the square of ``side`` places around each place, mirrored at the border."""
    wide = np.pad(plane, side // 2, mode="symmetric")
    for _ in range(2):  # down, and, turned over, across
        reach = 1
        while reach < side:  # the maximum of 7 is that of two maxima of 4, and so on
            step = min(reach, side - reach)
            wide = np.maximum(wide[:-step], wide[step:])
            reach += step
        wide = wide.T
    return wide


def inside(plane: np.ndarray) -> np.ndarray:
    """The picture without its outermost twentieth."""
    top, left = (round(_MARGIN * side) for side in plane.shape[:2])
    return plane[top : plane.shape[0] - top, left : plane.shape[1] - left]


def halved(plane: Plane) -> Plane:
    """Mean of each block of 2 x 2; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in plane.shape[:2])
    even = plane[:height, :width]
    return np.asarray(
        (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4, np.float32
    )


def gridded(plane: Plane, fields: int = 8) -> Plane:
    """Mean of each of ``fields`` x ``fields`` equal fields."""
    rows, columns = (_fields(side, fields) for side in plane.shape)
    return np.asarray(rows @ plane @ columns.T)


@lru_cache(maxsize=64)
def _fields(side: int, fields: int) -> Plane:
    """The mean of each field of a line of ``side``, as a matrix ``[fields, side]``."""
    starts = np.append(np.arange(fields) * side // fields, side)
    places = np.arange(side)
    inside = (places >= starts[:-1, None]) & (places < starts[1:, None])
    return np.asarray(inside / inside.sum(axis=1, keepdims=True), np.float32)


@lru_cache(maxsize=16)
def places(shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each place, ``[H, W]`` each; not to be written to."""
    rows, columns = np.indices(shape)
    return rows, columns


def thresholds(values: Plane) -> tuple[float, float]:
    """Otsu's thresholds that part values into three classes.

    References:
        Otsu, A threshold selection method from gray-level histograms, 1979, Eq. 19.
    """
    counts, borders = np.histogram(values, _BINS)
    weight = np.append(0, np.cumsum(counts))
    mass = np.append(0, np.cumsum(counts * (borders[1:] + borders[:-1]) / 2))
    within = mass[None, :] - mass[:, None]
    size = weight[None, :] - weight[:, None]
    score = np.where(size > 0, within**2 / np.maximum(size, 1), 0)  # of bins i..j-1
    i, j = _PAIRS
    total = score[0, i] + score[i, j] + score[j, _BINS]
    best = int(np.argmax(total))
    return float(borders[i[best]]), float(borders[j[best]])


def separation(values: Plane) -> tuple[float, float]:
    """Otsu's threshold for two classes, and the share of the variance that it explains.

    References:
        Otsu, 1979, Eq. 12.
    """
    counts, borders = np.histogram(values, _BINS)
    middles = (borders[1:] + borders[:-1]) / 2
    weight, mass = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    size, total = counts.sum(), (counts * middles).sum()
    between = (total * weight - size * mass) ** 2 / np.maximum(weight * (size - weight), 1)
    variance = (counts * middles**2).sum() - total**2 / size
    best = int(np.argmax(between))
    return float(borders[best + 1]), float(between[best] / size / max(variance, 1e-9))


class Ranked:
    """All numbers of a plane, from which any percentile is read.

    They are never sorted: a percentile puts its two neighbours where they would stand, which
    of 128 x 128 places costs a tenth of the sort, and the next one starts from there.
    """

    def __init__(self, plane: Plane | Array) -> None:
        self._numbers = plane.flatten()

    def at(self, percent: float) -> float:
        """The percentile, between two neighbours on the line from one to the other."""
        last = len(self._numbers) - 1
        place = percent / 100 * last
        below = int(place)
        above = min(below + 1, last)
        self._numbers.partition((below, above))
        low, high = float(self._numbers[below]), float(self._numbers[above])
        share = place - below
        if share < 0.5:  # numpy's rule, so that the last digit is numpy's
            return low + (high - low) * share
        return high - (high - low) * (1 - share)

    @property
    def middle(self) -> float:
        """The median."""
        return self.at(50)


def local_deviation(plane: Plane, side: int) -> Plane:
    """Standard deviation in the square of ``side`` places around each place."""
    mean, square = (ndimage.uniform_filter(p, side, mode="nearest") for p in (plane, plane**2))
    return np.asarray(np.sqrt(np.maximum(square - mean**2, 0)))


def blurred(planes: Plane, sigma: float, *, truncate: float) -> Plane:
    """A plane, or several ``[..., H, W]``, under a Gaussian; beyond the border it goes on.

    At these sizes two products of matrices cost less than a filter that runs along each line.
    """
    height, width = planes.shape[-2:]
    rows, columns = (_kernel(side, sigma, truncate) for side in (height, width))
    return np.asarray(rows @ planes @ columns.T)


@lru_cache(maxsize=64)
def _kernel(side: int, sigma: float, truncate: float) -> Plane:
    """What the filter makes of each place of a line of ``side``, as a matrix."""
    return np.asarray(
        ndimage.gaussian_filter1d(
            np.eye(side), sigma, axis=0, mode="nearest", truncate=truncate
        ),
        np.float32,
    )


def _soft(plane: Plane, sigma: float) -> Plane:
    return blurred(plane, sigma, truncate=3.0)


def _lab(pixels: NDArray[np.uint8]) -> Array:
    """CIE L*a*b* (D65); skimage's numbers, but a byte's light is looked up, not computed."""
    white = np.tile(_WHITE, (pixels.shape[1], 1))  # a row of it: numpy is slow on rows of 3
    xyz = _LINEAR.take(pixels) @ xyz_from_rgb.T / white
    root = np.cbrt(xyz)
    np.copyto(root, 7.787 * xyz + 16.0 / 116.0, where=xyz <= 0.008856)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def _shrunk(image: Image.Image, longest: int) -> Image.Image:
    """The picture with this longer side; a very long one is stretched to 4 : 1."""
    scale = longest / max(image.size)
    size = [max(longest // 4, round(side * scale)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.BILINEAR, reducing_gap=1.0)
