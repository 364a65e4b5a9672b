"""Measures of space: what the air does to far things, and where the ground lies."""

import math

import numpy as np

from atelier.annotators.measured.view import View


def recession(view: View) -> float:
    """How much paler far ground is than near ground, as a share of the value range.

    Far ground is the band just below the middle, near ground the foot of the picture.

    Unit: share of the value range.
    Silent: where no sky is seen above ground: the top should be lighter than the foot, on the
    left, in the middle and on the right.
    Limits: bands at fixed heights: trees that reach above the horizon count as far.

    References:
        Gibson, The Perception of the Visual World, 1950, on aerial perspective.
    """
    if view.ground is None:
        return math.nan
    light = view.calm[..., 0]
    far, near = (float(np.median(light[band])) for band in (view.ground.far, view.ground.near))
    return (far - near) / max(view.value_range, 1e-6)


def color_fade(view: View) -> float:
    """How much colour far ground has lost beside near ground.

    Difference of the mean CIE chroma of near and far ground, and half the difference of
    their warmth along b*.

    Unit: Lab units; above 0 where the distance is paler or cooler.
    Silent: where no calm sky over ground is seen.
    Limits: bands at fixed heights: trees that reach above the horizon count as far.

    References:
        Leonardo, Treatise on Painting, 1651, on the perspective of colour.
    """
    if view.ground is None or not view.calm_sky:
        return math.nan
    near, far = (view.lab[band, :, 1:] for band in (view.ground.near, view.ground.far))
    chroma = float(np.hypot(*near.mean(axis=(0, 1))) - np.hypot(*far.mean(axis=(0, 1))))
    return chroma + 0.5 * float(near[..., 1].mean() - far[..., 1].mean())


def sky_vault(view: View) -> float:
    """How much the sky deepens from the horizon upwards.

    L* of the band above the middle minus that of the top tenth, each the upper quartile, so
    that trees and masts before the sky do not count.

    Unit: L*; above 0 where the zenith is darker.
    Silent: where no calm sky over ground is seen.
    Limits: dark clouds at the top count as depth.
    """
    if not view.calm_sky:
        return math.nan
    rows = len(view.value)
    top = view.value[: max(1, rows // 10)]
    low = view.value[rows * 28 // 100 : rows * 38 // 100 + 1]
    return float(np.percentile(low, 75) - np.percentile(top, 75))


def background_quiet(view: View) -> float:
    """How much quieter the border is than the middle.

    Logarithm of the mean steepness of the middle 4 x 4 of 8 x 8 fields over that of the upper
    and outer fields around them.

    Unit: natural logarithm of a ratio; above 0 where the surroundings are quieter.
    Silent: without edges (mean steepness below 0.8 L* a pixel).
    Limits: the subject is taken to stand in the middle.
    """
    if view.mean_steepness < 0.8:
        return math.nan
    fields = view.busyness
    middle = float(fields[2:7, 2:6].mean())
    around = float(np.concatenate([fields[:2].ravel(), fields[:, 0], fields[:, 7]]).mean())
    return math.log((middle + 0.1) / (around + 0.1))
