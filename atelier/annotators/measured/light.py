"""Measures of light: values as a pattern, and light as a cause."""

import math

import numpy as np
from scipy import ndimage

from atelier.annotators.measured.view import View, blurred, gridded, places, separation

_FLAT = 3.0  # standard deviation of L* below which there is no pattern of values


def value_range(view: View) -> float:
    """How far lights and darks are apart.

    Percentiles of the blurred picture: a few clipped pixels do not move it.

    Unit: L*, 0 to 100.
    Silent: never.
    Limits: an overexposed photograph widens it.

    References:
        Dow, Composition, 1899, on notan: the design of light and dark masses.
    """
    return view.value_range


def highlight_scatter(view: View) -> float:
    """How far the lightest lights lie from their own middle.

    The root mean square distance of the lightest 1% of pixels, after a blur of 2 pixels, from
    their centroid: about 0.05 for one accent, 0.3 for many. A rank, so that raising or
    clipping values does not move it.

    Unit: share of the longer side.
    Silent: where all is equally light.
    Limits: the sky's light and a highlight are alike.
    """
    light = view.calm[..., 0]
    if np.ptp(light) < 1:
        return math.nan
    places = np.argwhere(light >= view.calm_lights.at(99))
    return float(np.sqrt(places.var(axis=0).sum()) / max(light.shape))


def pattern_strength(view: View) -> float:
    """How much of the values' contrast is left when the picture is seen from afar.

    Share of the variance of L* that a 10 x 10 mosaic keeps.

    Unit: share, 0 to 1.
    Silent: without contrast (standard deviation of L* below 3).
    Limits: a plain vignette is a strong pattern too.

    References:
        Dow, Composition, 1899, on notan.
    """
    variance = float(view.value.var())
    if variance < _FLAT**2:
        return math.nan
    return float(gridded(view.value, 10).var()) / variance


def dark_linkage(view: View) -> float:
    """How much of the dark hangs together: share of its largest connected area.

    Dark is the lowest of Otsu's three value steps.

    Unit: share of the dark area, 0 to 1.
    Silent: where dark covers less than 8% or more than 70%.
    Limits: a dark ground that surrounds everything links all.

    References:
        Payne, Composition of Outdoor Painting, 1941.
    """
    dark = view.regions.areas[view.regions.steps == 0]
    if not 0.08 <= dark.sum() <= 0.7:
        return math.nan
    return float(dark.max() / dark.sum())


def value_fragmentation(view: View) -> float:
    """How much values change inside areas, beside how much they change at all.

    Median standard deviation of L* in 5 x 5 places, divided by that of the picture.

    Unit: ratio, 0 to about 1.
    Silent: without contrast (standard deviation of L* below 3).
    Limits: small ornaments count as broken value.

    References:
        Loomis, Creative Illustration, 1947, on the simple planes of tone.
    """
    whole = view.value_deviation
    if whole < _FLAT:
        return math.nan
    return view.middle_value_deviation / whole


def darkest_area(view: View) -> float:
    """Share of the surface within 8 L* of the darkest tone.

    Unit: share, 0 to 1.
    Silent: without real darks: the 1st percentile of L* is above 30.
    Limits: one dark mass and many specks of the same area are alike.
    """
    darkest = view.values.at(1)
    if darkest > 30:
        return math.nan
    return float((view.value < darkest + 8).mean())


def halo(view: View) -> float:
    """How gradually values fall away from the lightest light.

    Mean L* at an eighth of the longer side from the lightest place, between the picture's
    median (0) and the light itself (1).

    Unit: share of the light's height above the median.
    Silent: without a light: less than 25 L* above the median, or the border cuts it off.
    Limits: a large white thing has no fall near its middle and counts as a glow.
    """
    value = view.coarse[..., 0]
    scale = max(value.shape) / 32
    smooth = blurred(value, 1.0 * scale, truncate=4.0)
    row, column = np.unravel_index(np.argmax(smooth), smooth.shape)
    rows, columns = places(value.shape)
    away = np.hypot(rows - row, columns - column) / max(value.shape)
    ring = (away > 0.1) & (away < 0.15)
    middle = float(np.median(value))
    height = float(smooth[row, column]) - middle
    if height < 25 or not ring.any():
        return math.nan
    return (float(value[ring].mean()) - middle) / height


def light_falloff(view: View) -> float:
    """How strictly values fall with the distance from the lightest area.

    Correlation of L* with the distance from the lightest area's middle, sign turned.

    Unit: -1 to 1.
    Silent: without contrast (standard deviation of L* below 3), and where most of the surface
    is light (median of L* above 70), as paper is.
    Limits: a light thing on a dark ground counts, whatever lights it.

    References:
        Gurney, Color and Light, 2010, on fall-off.
    """
    value = view.coarse[..., 0]
    if value.std() < _FLAT or np.median(value) > 70:
        return math.nan
    smooth = blurred(value, max(value.shape) / 10, truncate=4.0)
    row, column = np.unravel_index(np.argmax(smooth), smooth.shape)
    rows, columns = places(value.shape)
    away = np.hypot(rows - row, columns - column)
    return -float(np.corrcoef(away.ravel(), value.ravel())[0, 1])


def light_dark_separation(view: View) -> float:
    """How cleanly lights and darks part into two families.

    Share of the variance of L* that two classes explain.

    Unit: share; 0.64 for a bell-shaped distribution, 0.75 for an even one, 1 for two tones.
    Silent: without contrast (standard deviation of L* below 3).
    Limits: light and dark things count as light and shadow.

    References:
        Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    if view.value_deviation < _FLAT:
        return math.nan
    return separation(view.value)[1]


def shadow_detail(view: View) -> float:
    """How much can be followed inside the shadows.

    Mean standard deviation of L* in 5 x 5 places that are dark throughout (L* below 35).

    Unit: L*.
    Silent: where less than 4% of the surface is so.
    Limits: noise and canvas in a lightened photograph count as form.
    """
    inside = ndimage.maximum_filter(view.value, 5, mode="nearest") < 35
    if inside.mean() < 0.04:
        return math.nan
    return float(view.local_value_deviation[inside].mean())
