"""The measured annotator: attributes read back from pixels by image statistics.

Each measure is one function of a ``View`` that returns one number, or NaN where the criterion
does not apply to what is seen. The criteria file says at which numbers a pole is spoken
for (``measure: {name, positive_at, negative_at}``); between the two the annotator abstains.
Nothing is read but pixels.

Measures are relative where they can be: a recession, a spot, a stroke is compared with the
picture's own range of values, so that neither saturating nor clipping colours moves them.
"""

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.transform import resize

from atelier.criteria.tree import Measure, Pole, Tree
from atelier.errors import CriteriaError

NAME = "measured-1"
Array = NDArray[np.float64]

WORKING_PIXELS = (
    128  # longer side at which pictures are measured; scales below are at this size
)
_FAINT_EDGE = 0.1  # Lab units a pixel, after blur, below which a picture has no edges
_NARROWEST = 16  # pixels to which the shorter side of a very long picture is stretched
_FAINT_CHROMA = 6.0  # mean CIE chroma below which a picture has no hues to compare


class View:
    """One picture and what several measures need of it, each computed once.

    Attributes:
        lab: CIE L*a*b* (D65), ``[H, W, 3]``; L* in [0, 100].
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        height, width, _ = pixels.shape
        image = pixels / 255.0
        if max(height, width) != WORKING_PIXELS:
            scale = WORKING_PIXELS / max(height, width)
            shape = [max(_NARROWEST, round(side * scale)) for side in (height, width)]
            image = resize(image, (*shape, 3), order=1, anti_aliasing=scale < 1)
        self.lab: Array = np.asarray(rgb2lab(image), np.float64)

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
        low, high = np.percentile(self.calm[..., 0], (2, 98))
        return float(high - low)

    def blurred(self, sigma: float) -> Array:
        """Lab under a Gaussian of ``sigma`` pixels, ``[H, W, 3]``."""
        return np.asarray(ndimage.gaussian_filter(self.lab, (sigma, sigma, 0), mode="nearest"))


def hue_spread(view: View) -> float:
    """How far the hues lie apart: circular standard deviation in degrees, weighted by chroma.

    NaN where the picture is nearly colourless. Neighbouring hues (Itten, 1961) lie within
    about 20 degrees.

    References:
        Mardia and Jupp, Directional Statistics, 2000, Eq. 2.3.11.
    """
    a, b = view.calm[..., 1], view.calm[..., 2]
    chroma = np.hypot(a, b)
    if chroma.mean() < _FAINT_CHROMA:
        return math.nan
    resultant = math.hypot(float(a.sum()), float(b.sum())) / float(chroma.sum())
    return math.degrees(math.sqrt(-2 * math.log(min(1.0, max(resultant, 1e-9)))))


def value_range(view: View) -> float:
    """How far lights and darks are apart, in L* (0 to 100).

    Percentiles of the blurred picture: a few clipped pixels do not move it (Dow's notan:
    the design of light and dark masses, 1899).
    """
    return view.value_range


def recession(view: View) -> float:
    """How much paler far ground is than near ground, as a share of the value range.

    Far ground is the band just below the middle, near ground the foot of the picture. NaN
    where no sky is seen above ground: the top should be lighter than the foot, on the left, in
    the middle and on the right (aerial perspective: Gibson, 1950).
    """
    light = view.calm[..., 0]
    height = len(light)

    def band(top: float, bottom: float, columns: Array = light) -> float:
        return float(np.median(columns[round(top * height) : round(bottom * height)]))

    span = max(view.value_range, 1e-6)
    for columns in np.array_split(light, 5, axis=1)[::2]:
        if band(0, 0.3, columns) - band(0.88, 1, columns) < 0.2 * span:
            return math.nan
    return (band(0.48, 0.62) - band(0.88, 1)) / span


def mass_offset(view: View) -> float:
    """How far the visual weight lies from the middle axis, as a share of the width, 0 to 0.5.

    Weight is the colour difference to the middle colour of the same row, so that horizontal
    layers weigh nothing (balance about the vertical axis: Arnheim, 1974). NaN where
    nothing stands out.
    """
    calm = view.blurred(3.0)
    away = np.linalg.norm(calm - np.median(calm, axis=1, keepdims=True), axis=-1)
    weight = np.maximum(away - 0.3 * np.percentile(away, 99), 0).sum(axis=0)
    if weight.sum() <= 0:
        return math.nan
    middles = (np.arange(len(weight)) + 0.5) / len(weight)
    return abs(float((weight * middles).sum() / weight.sum()) - 0.5)


def highlight_scatter(view: View) -> float:
    """How far the lightest lights lie from their own middle, as a share of the longer side.

    The root mean square distance of the lightest 1% of pixels, after a blur of 2 pixels, from
    their centroid: about 0.05 for one accent, 0.3 for many. A rank, so that raising or
    clipping values does not move it. NaN where all is equally light.
    """
    light = ndimage.gaussian_filter(view.light, 2.0, mode="nearest")
    if np.ptp(light) < 1:
        return math.nan
    places = np.argwhere(light >= np.percentile(light, 99))
    return float(np.sqrt(places.var(axis=0).sum()) / max(light.shape))


def edge_sharpness(view: View) -> float:
    """How steep the strong edges are: gradient at 1.5 pixels over that at 4.5 pixels of blur.

    In the middle of an edge blurred over s pixels it is ``sqrt((4.5^2 + s^2) / (1.5^2 +
    s^2))``: 3 for an ideal step, 1 for a slope wider than both blurs; the median is taken over
    a strip along the edges, where a step gives about 2.1. Taken where the coarse colour
    gradient is strongest, which is at the outlines of shapes and not at the marks inside
    them. NaN where there is no edge.

    References:
        Elder and Zucker, Local scale control for edge detection and blur estimation, 1998.
    """
    fine, coarse = (_steepness(view.blurred(sigma)) for sigma in (1.5, 4.5))
    least = float(np.percentile(coarse, 93))
    if least < _FAINT_EDGE:
        return math.nan
    strong = coarse >= least
    near = ndimage.maximum_filter(fine, 3)
    return float(np.median(near[strong] / coarse[strong]))


def stroke_flow(view: View) -> float:
    """How much the marks of a neighbourhood share one direction, 0 to 1.

    Coherence of the structure tensor of L* without its masses, in windows of about 16
    pixels; gradients are cut at their median, so that no outline outweighs the marks.

    References:
        Bigun and Granlund, Optimal orientation detection of linear symmetry, 1987.
    """
    marks = view.light - ndimage.gaussian_filter(view.light, 4.0, mode="nearest")
    marks = ndimage.gaussian_filter(marks, 1.0, mode="nearest")
    down, across = np.gradient(marks)
    size = np.hypot(down, across)
    cut = np.minimum(1, np.median(size) / np.maximum(size, 1e-9))
    down, across = down * cut, across * cut
    yy, xx, xy = (
        ndimage.gaussian_filter(product, 8.0, mode="nearest")
        for product in (down * down, across * across, down * across)
    )
    energy = yy + xx
    if energy.sum() <= 1e-9:
        return math.nan
    return float(np.hypot(xx - yy, 2 * xy).sum() / energy.sum())


def _steepness(lab: Array) -> Array:
    """Length of the colour gradient at each pixel, in Lab units a pixel."""
    down, across = np.gradient(lab, axis=(0, 1))
    return np.asarray(np.sqrt((down**2 + across**2).sum(axis=-1)))


MEASURES: dict[str, Callable[[View], float]] = {
    "hue_spread": hue_spread,
    "value_range": value_range,
    "recession": recession,
    "mass_offset": mass_offset,
    "highlight_scatter": highlight_scatter,
    "edge_sharpness": edge_sharpness,
    "stroke_flow": stroke_flow,
}


def judge(pixels: NDArray[np.uint8], tree: Tree) -> list[tuple[str, Pole, float]]:
    """Judge a picture by every criterion of ``tree`` that has a measure.

    Args:
        pixels: RGB, uint8 ``[H, W, 3]``.
        tree: The criteria.

    Returns:
        (criterion path, pole, confidence in [0.5, 1]) of each that is not abstained from.

    Raises:
        CriteriaError: A criterion names a measure that does not exist.
    """
    view = View(pixels)
    judgements: list[tuple[str, Pole, float]] = []
    for path, criterion in tree.leaves().items():
        if criterion.measure is None:
            continue
        value = _measure(criterion.measure, path)(view)
        pole = criterion.measure.pole(value)
        if pole is not None:
            judgements.append((path, pole, _confidence(value, pole, criterion.measure)))
    return judgements


def _measure(measure: Measure, path: str) -> Callable[[View], float]:
    if measure.name not in MEASURES:
        raise CriteriaError(
            f"{path}: measure.name should be one of {', '.join(sorted(MEASURES))}, "
            f"got {measure.name!r}"
        )
    return MEASURES[measure.name]


def _confidence(value: float, pole: Pole, measure: Measure) -> float:
    """0.5 at the pole's threshold, 0.9 one abstention gap past it, towards 1 beyond."""
    gap = abs(measure.positive_at - measure.negative_at)
    at = measure.positive_at if pole == "positive" else measure.negative_at
    return 1 - 0.5 * 5 ** (-abs(value - at) / gap)
