"""Measures of composition: where weight, attention and incident lie on the surface."""

import math

import numpy as np
from scipy import ndimage

from atelier.annotators.measured.color import gini
from atelier.annotators.measured.view import View, gridded

_FLAT = 3.0  # standard deviation of L* below which nothing stands against anything


def mass_offset(view: View) -> float:
    """How far the visual weight lies from the middle axis.

    Weight is the colour difference to the middle colour of the same row, so that horizontal
    layers weigh nothing.

    Unit: share of the width, 0 to 0.5.
    Silent: where nothing stands out.
    Limits: weight is contrast alone; a face weighs no more than a stone of the same colour.

    References:
        Arnheim, Art and Visual Perception, 1974, on balance about the vertical axis.
    """
    calm = view.blurred(3.0)
    away = np.linalg.norm(calm - np.median(calm, axis=1, keepdims=True), axis=-1)
    weight = np.maximum(away - 0.3 * np.percentile(away, 99), 0).sum(axis=0)
    if weight.sum() <= 0:
        return math.nan
    middles = (np.arange(len(weight)) + 0.5) / len(weight)
    return abs(float((weight * middles).sum() / weight.sum()) - 0.5)


def weight_offset(view: View) -> float:
    """How far the visual weight lies from the middle axis, the outermost twentieth left out.

    As ``mass_offset``, at a quarter of its size and without the blur.

    Unit: share of the width, 0 to 0.5.
    Silent: where nothing stands out.
    Limits: weight is contrast alone; a face weighs no more than a stone of the same colour.

    References:
        Arnheim, Art and Visual Perception, 1954, on balance about the vertical axis.
    """
    away = np.linalg.norm(view.coarse - np.median(view.coarse, axis=1, keepdims=True), axis=-1)
    weight = np.maximum(away - 0.3 * np.percentile(away, 99), 0).sum(axis=0)
    if not view.stands_out or weight.sum() <= 0:
        return math.nan
    middles = (np.arange(len(weight)) + 0.5) / len(weight)
    return abs(float((weight * middles).sum() / weight.sum()) - 0.5)


def weight_height(view: View) -> float:
    """How high the dark weight lies.

    Mean height of what is darker than the median, weighted by how much.

    Unit: share of the height, 0 foot to 1 top.
    Silent: without contrast (standard deviation of L* below 3).
    Limits: weight is darkness alone; a large pale thing weighs nothing.

    References:
        Arnheim, Art and Visual Perception, 1954, on weight and height.
    """
    if view.value_deviation < _FLAT:
        return math.nan
    weight = np.maximum(np.float32(view.values.middle) - view.value, 0).sum(axis=1)
    heights = 1 - (np.arange(len(weight)) + 0.5) / len(weight)
    return float((weight * heights).sum() / max(float(weight.sum()), 1e-9))


def mirror_likeness(view: View) -> float:
    """How much the left half repeats the right half in a mirror.

    Correlation of the coarse Lab picture with its mirror image; what a row has in common
    is taken out first, so that layers are no symmetry.

    Unit: -1 to 1.
    Silent: where rows hold no differences (root mean square below 3), and where the halves
    differ because one is heavier (below 0.3, with twice the differences).
    Limits: about the vertical middle axis only.
    """
    away = view.coarse - view.coarse.mean(axis=1, keepdims=True)
    energy = float((away**2).sum(axis=-1).mean())
    if energy < _FLAT**2:
        return math.nan
    likeness = float((away * away[:, ::-1]).sum(axis=-1).mean()) / energy
    sides = [float((side**2).sum()) for side in np.array_split(away, 2, axis=1)]
    lopsided = max(sides) > 2 * min(sides)
    return math.nan if likeness < 0.3 and lopsided else likeness


def focus_offset(view: View) -> float:
    """How far from the middle the most striking mass lies.

    Distance of the middle of the highest salience (above 0.6 of its maximum, around the
    maximum) from the middle of the picture, as a share of the half diagonal.

    Unit: share, 0 to 1.
    Silent: where nothing stands out, or no mass does by itself (see ``focus_rivalry``).
    Limits: a bright gap of sky is a mass too; what the subject is, is not known.
    """
    if not view.rivalry <= 0.85:
        return math.nan
    middle = (np.array(view.focus[1:]) + 0.5) / view.salience.shape - 0.5
    return float(np.linalg.norm(middle) / math.sqrt(0.5))


def division_offset(view: View) -> float:
    """How far from the middle the line lies that parts the picture best.

    Of all straight cuts, level or upright, the one that explains most of the coarse Lab
    picture's variance by the means of its two sides; distance from the middle as a share
    of the side.

    Unit: share, 0 to 0.4.
    Silent: where the best cut explains less than 0.3 of the variance.
    Limits: slanting and bent divisions are not seen.

    References:
        Dow, Composition, 1899; Ross, A Theory of Pure Design, 1907.
    """
    total = float(view.coarse.var(axis=(0, 1)).sum())
    best = (0.3, math.nan)
    for axis in (0, 1):
        lines = view.coarse.mean(axis=1 - axis)
        count = len(lines)
        upto = np.cumsum(lines, axis=0)[:-1]
        share = (np.arange(1, count) / count)[:, None]
        between = ((upto / count - share * lines.mean(axis=0)) ** 2).sum(axis=1)
        explained = between / (share * (1 - share))[:, 0] / max(total, 1e-9)
        explained[(share[:, 0] < 0.1) | (share[:, 0] > 0.9)] = 0
        at = int(np.argmax(explained))
        best = max(best, (float(explained[at]), abs(float(share[at, 0]) - 0.5)))
    return best[1]


def mass_lead(view: View) -> float:
    """How far the largest area leads the next one.

    Areas are connected places of one of three value steps.

    Unit: difference of two shares of the surface, 0 to 1.
    Silent: without contrast (standard deviation of L* below 3).
    Limits: areas of one value and different hue are one.
    """
    if view.value_deviation < _FLAT:
        return math.nan
    areas = np.sort(view.regions.areas)[::-1]
    return float(areas[0] - (areas[1] if len(areas) > 1 else 0))


def size_spread(view: View) -> float:
    """How much the areas differ in size.

    Standard deviation of the natural logarithm of the areas above 0.2% of the surface.

    Unit: natural logarithm of a ratio of areas.
    Silent: with fewer than four such areas.
    Limits: see ``mass_lead``.
    """
    areas = view.regions.areas[view.regions.areas > 0.002]
    return float(np.log(areas).std()) if len(areas) >= 4 else math.nan


def corner_pull(view: View) -> float:
    """How much happens in the corners, beside the whole.

    Salience in the four corner squares of a sixth of the side, divided by its mean.

    Unit: ratio; 1 as everywhere, below 1 quieter.
    Silent: where nothing stands out.
    Limits: lines that run into a corner faintly are not seen.
    """
    if not view.stands_out:
        return math.nan
    fields = gridded(view.salience, 6)
    return float(fields[::5, ::5].max() / max(float(fields.mean()), 1e-9))


def one_way(view: View) -> float:
    """How much the edges run one way with nothing across them.

    Length of the mean of exp(2i direction), weighted by steepness.

    Unit: 0, every direction has its opposite across it, to 1, all one way.
    Silent: without edges (mean steepness below 0.8 L* a pixel).
    Limits: edges of equal weight in all directions count as braced.

    References:
        Mardia and Jupp, Directional Statistics, 2000.
    """
    return abs(view.directions[0]) if view.mean_steepness >= 0.8 else math.nan


def clutter(view: View) -> float:
    """Share of the surface that lies at an edge: steeper than 4 L* a pixel.

    Unit: share, 0 to 1.
    Silent: never.
    Limits: foliage and brushwork count as incident; whether it is stray is not known.

    References:
        Rosenholtz, Li and Nakano, Measuring visual clutter, 2007; Mack and Oliva, Computational
        estimation of visual complexity, 2004 (edge density).
    """
    return float((view.steepness > 4).mean())


def rest_contrast(view: View) -> float:
    """How unequally busy the fields of the surface are.

    Gini coefficient of the mean steepness in 8 x 8 fields.

    Unit: 0, every inch alike, to 1.
    Silent: without edges (mean steepness below 0.8 L* a pixel).
    Limits: one empty half counts as much as rests between busy parts.

    References:
        Arnheim, Art and Visual Perception, 1954.
    """
    return gini(view.busyness) if view.mean_steepness >= 0.8 else math.nan


def focus_rivalry(view: View) -> float:
    """How strong the second most striking place is, beside the first.

    Maxima of the blurred salience; the second lies at least 0.3 of the longer side away.

    Unit: ratio, 0 to 1.
    Silent: where nothing stands out.
    Limits: sees contrast, not meaning: a face does not outweigh a window.

    References:
        Itti, Koch and Niebur, A model of saliency-based visual attention, 1998.
    """
    return view.rivalry


def obliqueness(view: View) -> float:
    """How much the edges slant: more than 22.5 degrees from level and upright.

    Share of the steepness.

    Unit: share, 0 to 1; 0.5 where every direction is as frequent.
    Silent: without edges (mean steepness below 0.8 L* a pixel).
    Limits: a tilted photograph slants.

    References:
        Arnheim, Art and Visual Perception, 1954: obliqueness is the plainest means of tension.
    """
    if view.mean_steepness < 0.8:
        return math.nan
    down, across = (np.abs(part) for part in view.gradient)
    slant = np.minimum(down, across) > math.tan(math.pi / 8) * np.maximum(down, across)
    return float(view.steepness[slant].sum() / view.steepness.sum())


def group_count(view: View) -> float:
    """Into how many separate groups the striking places fall.

    Number of equal groups with the same entropy, of the connected places above the mean of
    the salience's maximum and median.

    Unit: groups, from 1.
    Silent: where nothing stands out.
    Limits: one thing with strong inner contrast may count as several.
    """
    if not view.stands_out:
        return math.nan
    least = 0.4 * view.saliences.at(100) + 0.6 * view.saliences.middle
    found, count = ndimage.label(view.salience > least)
    mass = ndimage.sum_labels(view.salience, found, np.arange(1, count + 1))
    share = mass / mass.sum()
    return math.exp(-float((share * np.log(share)).sum()))
