"""Measures of colour: what the hues, their strength and their temperature do."""

import math

import numpy as np

from atelier.annotators.measured.view import Plane, Ranked, View, local_deviation

_FAINT_CHROMA = 6.0  # mean CIE chroma below which a picture has no hues to compare
_NO_CHROMA = 3.0  # mean CIE chroma below which a picture is meant without colour
_LOUD = 40.0  # CIE chroma of a colour that calls


def hue_spread(view: View) -> float:
    """How far the hues lie apart: circular standard deviation, weighted by chroma.

    Neighbouring hues (Itten, 1961) lie within about 20 degrees.

    Unit: degrees.
    Silent: nearly colourless pictures (mean CIE chroma below 6).
    Limits: brown varnish brings all hues together.

    References:
        Mardia and Jupp, Directional Statistics, 2000, Eq. 2.3.11.
    """
    a, b = view.calm[..., 1], view.calm[..., 2]
    chroma = np.hypot(a, b)
    if chroma.mean() < _FAINT_CHROMA:
        return math.nan
    resultant = math.hypot(float(a.sum()), float(b.sum())) / float(chroma.sum())
    return math.degrees(math.sqrt(-2 * math.log(min(1.0, max(resultant, 1e-9)))))


def palette_size(view: View) -> float:
    """How many hues share the picture.

    The number of equally strong sectors of 10 degrees that would have the same entropy.

    Unit: sectors, 1 to 36.
    Silent: nearly colourless pictures.
    Limits: counts hues, not pigments: one pigment in light and shade may count twice.

    References:
        Jost, Entropy and diversity, 2006.
    """
    if view.mean_chroma < _FAINT_CHROMA:
        return math.nan
    return _diversity(view.hues)


def hue_lead(view: View) -> float:
    """How far the strongest hue leads the next one that is another hue.

    Shares of all chroma within 15 degrees of a hue; the next stands 45 degrees away at least.

    Unit: difference of two shares, 0 to 1.
    Silent: nearly colourless pictures.
    Limits: brown varnish leads as any hue does.

    References:
        Itten, The Art of Color, 1961, contrast of extension.
    """
    if view.mean_chroma < _FAINT_CHROMA:
        return math.nan
    near = _window(view.hues, 1) / max(float(view.hues.sum()), 1e-9)
    first = int(np.argmax(near))
    away = np.abs((np.arange(36) - first + 18) % 36 - 18) >= 5
    return float(near[first] - near[away].max())


def complement_force(view: View) -> float:
    """How strong the weaker of two opposite hues is, for the strongest such pair.

    Chroma within 30 degrees of a hue and of its opposite, a mean over the picture.

    Unit: CIE chroma.
    Silent: where nothing opposes: below 0.4.
    Limits: whether the two meet at a border is not seen.

    References:
        Chevreul, The Principles of Harmony and Contrast of Colours, 1839.
    """
    near = _window(view.hues, 3)
    force = float(np.minimum(near, np.roll(near, 18)).max())
    return force if force >= 0.4 else math.nan


def loud_area(view: View) -> float:
    """Share of the surface that strong colour takes (CIE chroma above 40).

    Unit: share, 0 to 1.
    Silent: below 0.005, where there is no strong colour.
    Limits: the eye's weight of a hue beyond its chroma (Itten's ratios) is left out.

    References:
        Munsell, A Color Notation, 1905: the stronger the colour, the smaller its area.
    """
    share = float((view.chroma > _LOUD).mean())
    return share if share >= 0.005 else math.nan


def chroma_contrast(view: View) -> float:
    """How far the purest colour stands above the middle one.

    1 minus the median of chroma over its 98th percentile.

    Unit: 0, all at one strength, to 1, pure colour among greys.
    Silent: where no colour is pure: the 98th percentile of chroma is below 35.
    Limits: a faded picture with one stain scores as well as one with a planned accent.

    References:
        Itten, The Art of Color, 1961, contrast of saturation.
    """
    purest = view.chromas.at(98)
    return 1 - view.chromas.middle / purest if purest >= 35 else math.nan


def colorfulness(view: View) -> float:
    """How colourful the picture is: spread of a* and b*, plus 0.37 of the mean chroma.

    Unit: Lab units; 10 is faint, 40 is strong.
    Silent: pictures without colour (mean CIE chroma below 3).
    Limits: darkened varnish lowers it and no painter is to blame.

    References:
        Hasler and Süsstrunk, Measuring colourfulness in natural images, 2003, Eq. M1.
    """
    if view.mean_chroma < _NO_CHROMA:
        return math.nan
    spread = math.sqrt(float(view.small[..., 1].var() + view.small[..., 2].var()))
    return spread + 0.37 * float(view.mean_chroma)


def mud(view: View) -> float:
    """Share of the surface that is dull brown: dark middle values of low chroma, hue 40 to 95.

    L* 15 to 55, CIE chroma 6 to 28.

    Unit: share, 0 to 1.
    Silent: nearly colourless pictures.
    Limits: earths used on purpose and browned varnish are not told from mud.
    """
    if view.mean_chroma < _FAINT_CHROMA:
        return math.nan
    hue = view.hue_degrees
    brown = (hue > 40) & (hue < 95) & (view.chroma > 6) & (view.chroma < 28)
    return float((brown & (view.value > 15) & (view.value < 55)).mean())


def gray_nuance(view: View) -> float:
    """How far the greys differ from one another in tint.

    Root mean square distance of (a*, b*) from their mean, over all of CIE chroma below 12
    and L* between 15 and 90.

    Unit: Lab units, 0 to 12.
    Silent: where less than a tenth of the surface is grey, and pictures without colour (mean
    CIE chroma below 3).
    Limits: the tint of a photograph's light moves all greys and is not seen as nuance.

    References:
        Gurney, Color and Light, 2010.
    """
    grey = (view.chroma < 12) & (view.value > 15) & (view.value < 90)
    if grey.mean() < 0.1 or view.mean_chroma < _NO_CHROMA:
        return math.nan
    return math.sqrt(float(view.small[grey][:, 1:].var(axis=0).sum()))


def light_chroma(view: View) -> float:
    """How much colour the lights hold: mean CIE chroma of the lightest 15%.

    Unit: CIE chroma.
    Silent: where there are no lights (85th percentile of L* below 60) or hardly any colour.
    Limits: yellowed varnish and paper count as coloured light.
    """
    least = view.values.at(85)
    if least < 60 or view.mean_chroma < _FAINT_CHROMA:
        return math.nan
    return float(view.chroma[view.value >= least].mean())


def shadow_chroma(view: View) -> float:
    """How much colour the shadows hold: mean CIE chroma of the darkest quarter.

    Unit: CIE chroma.
    Silent: where there are no darks (25th percentile of L* above 40) or hardly any colour.
    Limits: a dark thing of strong local colour counts as a shadow.
    """
    most = view.values.at(25)
    if most > 40 or view.mean_chroma < _FAINT_CHROMA:
        return math.nan
    return float(view.chroma[view.value <= most].mean())


def temperature_opposition(view: View) -> float:
    """How far lights and shadows part in temperature.

    Difference of the mean warmth, cos(hue - 55 degrees) weighted by chroma, between the
    lightest and the darkest 30%.

    Unit: 0, both alike, to 2, one orange and one blue.
    Silent: where either holds hardly any colour (mean chroma below 4).
    Limits: local colour is not told from the colour of light: a blue sky over brown earth
    counts.
    """
    light = view.value >= view.values.at(70)
    dark = view.value <= view.values.at(30)
    if min(view.chroma[light].mean(), view.chroma[dark].mean()) < 4:
        return math.nan
    warm = view.warmth
    light_warmth, dark_warmth = (
        float(warm[part].sum() / view.chroma[part].sum()) for part in (light, dark)
    )
    return abs(light_warmth - dark_warmth)


def temperature_play(view: View) -> float:
    """How much warm and cool change within areas of one value.

    Standard deviation of the warm component of colour in 5 x 5 places, a mean over the half
    of the surface whose values change least.

    Unit: Lab units.
    Silent: nearly colourless pictures.
    Limits: colour noise of a poor photograph counts.

    References:
        Harrison, Landscape Painting, 1909, on vibration.
    """
    if view.mean_chroma < _FAINT_CHROMA:
        return math.nan
    quiet = view.local_value_deviation
    return float(local_deviation(view.warmth, 5)[quiet <= view.middle_value_deviation].mean())


def green_variety(view: View) -> float:
    """How much the greens differ: spread of their (a*, b*) about the mean green.

    Greens have hue angles of 112 to 170 degrees and CIE chroma above 12.

    Unit: Lab units.
    Silent: where less than 8% of the surface is green.
    Limits: olive and ochre grass lies outside these angles in browned pictures.
    """
    hue = view.hue_degrees
    green = (hue > 112) & (hue < 170) & (view.chroma > 12)
    if green.mean() < 0.08:
        return math.nan
    return math.sqrt(float(view.small[green][:, 1:].var(axis=0).sum()))


def sky_hue_range(view: View) -> float:
    """How far the sky changes in colour from the top to the horizon, values aside.

    Distance in (a*, b*) between the medians of the top tenth and of the band above the middle.

    Unit: Lab units.
    Silent: where no calm sky over ground is seen.
    Limits: a sky is taken to fill the upper third; trees or hills before it are not cut out.
    """
    if not view.calm_sky:
        return math.nan
    rows = len(view.small)
    top, low = (
        np.median(view.small[band, :, 1:], axis=(0, 1))
        for band in (
            slice(0, max(1, rows // 10)),
            slice(rows * 28 // 100, rows * 38 // 100 + 1),
        )
    )
    return float(np.linalg.norm(top - low))


def color_echo(view: View) -> float:
    """How far apart the places of the accent colour lie.

    The accent is what differs most from the picture's middle colour: more than 0.7 of the
    greatest (a*, b*) distance. Root mean square distance of its places from their middle, as
    a share of the longer side.

    Unit: share; 0.05 for one patch, 0.3 for echoes all over.
    Silent: without an accent: it takes more than 6% or differs by less than 25.
    Limits: two accents of different hue count as echoes of one another.
    """
    colour = view.small[..., 1:]
    a, b = np.moveaxis(colour - np.median(colour, axis=(0, 1)), -1, 0)
    away = np.sqrt(a * a + b * b)
    furthest = Ranked(away).at(99.7)
    accent = away >= 0.7 * furthest
    if furthest < 25 or accent.mean() > 0.06:
        return math.nan
    return float(np.sqrt(np.argwhere(accent).var(axis=0).sum()) / max(accent.shape))


def color_offset(view: View) -> float:
    """How far the strong colour lies from the middle axis.

    Centroid of the chroma above the row's median, from the middle, as a share of the width.

    Unit: share of the width, 0 to 0.5.
    Silent: nearly colourless pictures.
    Limits: right and left only; above and below are not weighed.
    """
    if view.mean_chroma < _FAINT_CHROMA:
        return math.nan
    excess = np.maximum(view.chroma - np.float32(view.chromas.middle), 0).sum(axis=0)
    if excess.sum() <= 0:
        return math.nan
    middles = (np.arange(len(excess)) + 0.5) / len(excess)
    return abs(float((excess * middles).sum() / excess.sum()) - 0.5)


def gini(values: Plane) -> float:
    """Gini coefficient of values that are not negative; 0 where all are zero."""
    ordered = np.sort(values, axis=None).astype(np.float64)
    total, count = float(ordered.sum()), len(ordered)
    if total <= 0:
        return 0.0
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered / (count * total))


def _window(hues: np.ndarray, reach: int) -> np.ndarray:
    """Sum over each sector and ``reach`` sectors on either side."""
    round_about = np.concatenate([hues[-reach:], hues, hues[:reach]])
    starts = range(2 * reach, -1, -1)
    return np.asarray(sum(round_about[start : start + len(hues)] for start in starts))


def _diversity(weights: np.ndarray) -> float:
    share = weights[weights > 0] / weights.sum()
    return math.exp(-float((share * np.log(share)).sum()))
