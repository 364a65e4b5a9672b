"""Measures of form and line: edges, contours and the shapes that they close."""

import math

import numpy as np
from scipy import ndimage

from atelier.annotators.measured.view import Array, View, places

_FAINT_EDGE = 0.1  # Lab units a pixel, after blur, below which a picture has no edges
_STRONG = 4.0  # L* a pixel of an edge that is a contour


def edge_sharpness(view: View) -> float:
    """How steep the strong edges are: gradient at 1.5 pixels over that at 4.5 pixels of blur.

    In the middle of an edge blurred over s pixels it is ``sqrt((4.5^2 + s^2) / (1.5^2 +
    s^2))``: 3 for an ideal step, 1 for a slope wider than both blurs; the median is taken over
    a strip along the edges, where a step gives about 2.1. Taken where the coarse colour
    gradient is strongest, which is at the outlines of shapes and not at the marks inside
    them.

    Unit: ratio.
    Silent: where there is no edge, and below 128 pixels, where enlarging blurs all.
    Limits: a picture that is mostly sky has its strongest edges in soft clouds.

    References:
        Elder and Zucker, Local scale control for edge detection and blur estimation, 1998.
    """
    fine, coarse = (_steepness(view.blurred(sigma)) for sigma in (1.5, 4.5))
    least = float(np.percentile(coarse, 93))
    if least < _FAINT_EDGE or view.enlarged:
        return math.nan
    strong = coarse >= least
    return float(np.median(ndimage.maximum_filter(fine, 3)[strong] / coarse[strong]))


def edge_firmness(view: View) -> float:
    """How steep the strong edges are, along their crests.

    Gradient of L* at 1.5 pixels over that at 4.5 pixels of blur, the median along the crests of
    the tenth of the surface where the coarse gradient is strongest: 3 for an ideal step, 1 for
    a slope wider than both blurs.

    Unit: ratio.
    Silent: where there is no edge, and below 192 pixels, where all edges are soft.
    Limits: a picture that is mostly sky has its strongest edges in soft clouds; edges between
    colours of one value are not seen.

    References:
        Elder and Zucker, Local scale control for edge detection and blur estimation, 1998.
    """
    ratios = view.crests
    if ratios is None or view.marks is None or not len(ratios):
        return math.nan
    return float(np.median(ratios))


def edge_variety(view: View) -> float:
    """How much the strong edges differ in sharpness.

    Quartile range of the ratio of ``edge_firmness``, divided by its median.

    Unit: ratio; 0 for one sharpness.
    Silent: where there is no edge, and below 192 pixels, where all edges are soft.
    Limits: whether an edge is lost where the form asks for it is not known.

    References:
        Elder and Zucker, Local scale control for edge detection and blur estimation, 1998.
    """
    ratios = view.crests
    if ratios is None or view.marks is None or not len(ratios):
        return math.nan
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return float((high - low) / middle)


def contour_run(view: View) -> float:
    """How long contours run without a break.

    Ridges of the gradient steeper than 4 L* a pixel: mean length of the connected ridge that
    a place of a ridge belongs to, as a share of the longer side.

    Unit: share of the longer side.
    Silent: with hardly any contour (below 2% of the places), and below 128 pixels.
    Limits: in dense textures neighbouring ridges touch and count as one.

    References:
        Canny, A computational approach to edge detection, 1986 (non-maximum suppression).
    """
    ridge = _ridges(view)
    if ridge.mean() < 0.02 or view.enlarged:
        return math.nan
    found, count = ndimage.label(ridge, np.ones((3, 3)))
    length = np.bincount(found.ravel(), minlength=count + 1)[1:].astype(float)
    return float((length**2).sum() / length.sum() / max(ridge.shape))


def shape_tautness(view: View) -> float:
    """How unlike the two dimensions of areas are.

    Ratio of the longer to the shorter axis of the ellipse with an area's second moments,
    natural logarithm, a mean over areas above 0.5%, weighted by the root of the area.

    Unit: natural logarithm of a ratio.
    Silent: with fewer than three such areas.
    Limits: areas of one value and different hue are one.
    """
    regions = view.regions
    large = np.flatnonzero(regions.areas > 0.005)
    if len(large) < 3:
        return math.nan
    flat = regions.labels.ravel()
    rows, columns = (axis.ravel().astype(float) for axis in places(regions.labels.shape))
    size = np.bincount(flat)
    sums = [np.bincount(flat, weights=w) / size for w in (rows, columns)]
    yy, xx, xy = (
        np.bincount(flat, weights=p) / size - q
        for p, q in (
            (rows**2, sums[0] ** 2),
            (columns**2, sums[1] ** 2),
            (rows * columns, sums[0] * sums[1]),
        )
    )
    middle, apart = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    ratio = 0.5 * np.log((middle + apart + 0.1) / np.maximum(middle - apart + 0.1, 0.1))
    return float(np.average(ratio[large], weights=np.sqrt(regions.areas[large])))


def _steepness(lab: Array) -> Array:
    """Length of the colour gradient at each pixel, in Lab units a pixel."""
    down, across = np.gradient(lab, axis=(0, 1))
    return np.asarray(np.sqrt((down**2 + across**2).sum(axis=-1)))


def _ridges(view: View) -> np.ndarray:
    """Where the gradient is steeper than a contour's and than on both sides across it."""
    down, across = view.gradient
    steep = np.pad(view.steepness, 1, mode="edge")
    y, x = (np.rint(part / np.maximum(view.steepness, 1e-6)) for part in (down, across))
    rows, columns = places(view.steepness.shape)
    width = steep.shape[1]
    here = (rows + 1) * width + columns + 1
    step = (y * width + x).astype(np.int64)
    ahead, behind = steep.take(here + step), steep.take(here - step)
    ridge = (view.steepness >= ahead) & (view.steepness > behind)
    return np.asarray(ridge & (view.steepness > _STRONG))
