"""Measures of brushwork: the marks, their size, their direction and where they are."""

import math

import numpy as np
from scipy import ndimage

from atelier.annotators.measured.color import gini
from atelier.annotators.measured.view import View, coherence, gridded


def stroke_flow(view: View) -> float:
    """How much the marks of a neighbourhood share one direction, at 128 pixels.

    Coherence of the structure tensor of L* without its masses, in windows of about 16
    pixels; gradients are cut at their median, so that no outline outweighs the marks.

    Unit: 0, every way, to 1, one way.
    Silent: where there are no marks.
    Limits: made for the starter's broad strokes; ``stroke_order`` sees finer ones.

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


def touch_variety(view: View) -> float:
    """How much the size of the marks changes over the surface.

    Standard deviation, over 8 x 8 fields, of the logarithm of the strength of marks of 2 to 4
    pixels (of 256) over that of marks below 1 pixel.

    Unit: natural logarithm of a ratio.
    Silent: where the marks are not resolved (below 192 pixels), or there are none.
    Limits: depicted textures count as touch.
    """
    strengths = view.strengths
    if strengths is None:
        return math.nan
    return float(np.log((strengths[2] + 0.05) / (strengths[0] + 0.05)).std())


def stroke_order(view: View) -> float:
    """How much the marks of a neighbourhood share one direction.

    Coherence of the structure tensor of the marks of 1 to 4 pixels (of 256) in windows of 24
    pixels; gradients are cut at their median, so that no outline outweighs the marks.

    Unit: 0, every way, to 1, one way.
    Silent: where the marks are not resolved (below 192 pixels), or there are none.
    Limits: masts, grass and folds share directions as strokes do.

    References:
        Bigun and Granlund, Optimal orientation detection of linear symmetry, 1987.
    """
    if view.strokes is None:
        return math.nan
    tensor, energy = coherence(view.strokes, 12)
    return float(np.abs(tensor).sum() / max(float(energy.sum()), 1e-9))


def finish_focus(view: View) -> float:
    """How much the finest marks are gathered in few places.

    Gini coefficient of their strength over 8 x 8 fields.

    Unit: 0, the same everywhere, to 1.
    Silent: where the marks are not resolved (below 192 pixels), or there are none.
    Limits: whether finish lies where it counts is not known.
    """
    strengths = view.strengths
    return math.nan if strengths is None else gini(strengths[0])


def surface_life(view: View) -> float:
    """How much the hand still shows in the smoothest fifth of the surface.

    Strength of marks below 2 pixels (of 256), over the fields with a mean lightness of 25 at
    least; nothing is seen in the dark.

    Unit: lightness, 0 to 100.
    Silent: where the marks are not resolved (below 192 pixels), where less than a quarter of
    the surface is light enough, and where nothing is smooth (above 2).
    Limits: photographic noise and JPEG blocks count as the hand.
    """
    strengths = view.strengths
    if strengths is None or view.marks is None:
        return math.nan
    lit = gridded(view.marks) >= 25
    if lit.mean() < 0.25:
        return math.nan
    fields = np.sort((strengths[0] + strengths[1])[lit])
    life = float(fields[: max(1, len(fields) // 5)].mean())
    return life if life < 2 else math.nan


def spelled_detail(view: View) -> float:
    """How much of the picture is said in fine detail.

    Strength of marks below 1 pixel (of 256) as a share of the strength of all below 4.

    Unit: share, 0 to 1.
    Silent: where the marks are not resolved (below 192 pixels), or there are none.
    Limits: a sharper photograph of the same painting scores higher.

    References:
        Graham and Field, Statistical regularities of art images and natural scenes, 2007.
    """
    strengths = view.strengths
    if strengths is None:
        return math.nan
    return float(strengths[0].sum() / sum(s.sum() for s in strengths))
