"""Every measure on pictures made by hand, of which the answer is known."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.color import lab2rgb

from atelier.annotators import measured
from atelier.annotators.measured import View, view
from atelier.criteria import tree

CRITERIA = Path(__file__).parents[4] / "params" / "criteria"
SIDE = 256
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE]
NOISE = np.random.default_rng(0).standard_normal((SIDE, SIDE))
BLOCKS = np.sign(np.kron(NOISE[:64, :64], np.ones((4, 4))))
SMOOTH_NOISE = ndimage.gaussian_filter(NOISE, 6) * 20


def painted(values, a=0.0, b=0.0):
    planes = np.broadcast_arrays(np.asarray(values, float), a, b, np.zeros((SIDE, SIDE)))[:3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # colours outside sRGB are clipped, here on purpose
        rgb = lab2rgb(np.stack(planes, axis=-1))
    return np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8)


def number(name, picture):
    return measured.MEASURES[name](View(picture))


def disc(row, column, radius):
    return np.hypot(ROWS - row, COLUMNS - column) < radius


def box(top, left, bottom, right):
    return (top <= ROWS) & (bottom > ROWS) & (left <= COLUMNS) & (right > COLUMNS)


def hued(degrees, chroma, values=60.0):
    angle = np.radians(np.asarray(degrees, float))
    return painted(values, chroma * np.cos(angle), chroma * np.sin(angle))


def landscape(sky=85.0, far=60.0, near=20.0, sky_a=0.0, sky_b=0.0, near_b=0.0, far_b=0.0):
    """Sky over far ground over near ground, the ground with marks."""
    grounded = ROWS >= 0.45 * SIDE
    foot = ROWS >= 0.8 * SIDE
    values = np.where(foot, near, np.where(grounded, far, sky)) + grounded * 6 * NOISE
    return painted(
        values,
        np.where(grounded, 0, sky_a),
        np.where(foot, near_b, np.where(grounded, far_b, sky_b)),
    )


def gratings(step):
    """Marks 4 pixels wide in fields of ``step`` pixels, each with a direction of its own."""
    turn = (ROWS // step * 7 + COLUMNS // step * 3) % 8 * math.pi / 8
    return np.sin((COLUMNS * np.cos(turn) + ROWS * np.sin(turn)) * 2 * np.pi / 6)


CHECKS = 60 + 30 * ((ROWS // 32 + COLUMNS // 32) % 2)
RIGHT = COLUMNS >= SIDE // 2
FIELD = ndimage.gaussian_filter(np.where(RIGHT, 80.0, 30.0), 8)
SPOT = disc(128, 128, 20)
ACCENT = disc(128, 128, 14)
ECHOES = disc(60, 60, 8) | disc(60, 196, 8) | disc(196, 60, 8) | disc(196, 196, 8)
STONES = disc(60, 60, 28) | disc(60, 196, 28) | disc(196, 60, 28) | disc(196, 196, 28)
HALF = np.where(RIGHT, 40, 220)
SKY_FADE = np.clip(1 - ROWS / (0.45 * SIDE), 0, 1)

# measure: a picture where it is low, one where it is high
KNOWN = {
    "clutter": (painted(FIELD), painted(50 + 20 * BLOCKS)),
    "corner_pull": (
        painted(60 - 40 * SPOT),
        painted(60 - 40 * (disc(30, 30, 14) | disc(30, 226, 14))),
    ),
    "division_offset": (
        painted(np.where(ROWS < 128, 80, 30)),
        painted(np.where(ROWS < 64, 80, 30)),
    ),
    "focus_offset": (painted(60 - 40 * SPOT), painted(60 - 40 * disc(70, 70, 20))),
    "focus_rivalry": (
        painted(60 - 40 * SPOT),
        painted(60 - 40 * (disc(128, 60, 20) | disc(128, 196, 20))),
    ),
    "group_count": (painted(60 - 40 * SPOT), painted(60 - 40 * ECHOES)),
    "mass_lead": (painted(CHECKS), painted(np.where(box(0, 0, 256, 64), 30, 80))),
    "mass_offset": (painted(60 - 40 * SPOT), painted(60 - 40 * disc(128, 50, 20))),
    "weight_offset": (painted(60 - 40 * SPOT), painted(60 - 40 * disc(128, 50, 20))),
    "mirror_likeness": (
        painted(60 - 40 * (disc(60, 90, 24) | disc(190, 166, 24))),
        painted(60 - 40 * (disc(128, 70, 24) | disc(128, 186, 24))),
    ),
    "obliqueness": (
        painted(50 + 30 * np.sign(np.sin(COLUMNS / 8))),
        painted(50 + 30 * np.sign(np.sin((COLUMNS + ROWS) / 8))),
    ),
    "one_way": (painted(CHECKS), painted(50 + 30 * np.sign(np.sin(COLUMNS / 8)))),
    "rest_contrast": (
        painted(50 + 20 * BLOCKS),
        painted(50 + 20 * BLOCKS * disc(128, 128, 70)),
    ),
    "size_spread": (
        painted(CHECKS),
        painted(60 - 40 * (disc(128, 90, 80) | disc(40, 220, 10) | disc(190, 226, 14))),
    ),
    "weight_height": (
        painted(np.where(ROWS < 170, 80, 20)),
        painted(np.where(ROWS < 86, 20, 80)),
    ),
    "chroma_contrast": (hued(40, 45), hued(40, np.where(disc(128, 128, 40), 50, 8))),
    "color_echo": (hued(30, 50 * ACCENT, 60.0), hued(30, 50 * ECHOES, 60.0)),
    "color_offset": (hued(30, 9 + 40 * SPOT), hued(30, 9 + 40 * disc(128, 60, 20))),
    "colorfulness": (hued(60, 5), hued(HALF, 50)),
    "complement_force": (hued(HALF, 4), hued(HALF, 40)),
    "gray_nuance": (hued(60, 5), hued(HALF, 8)),
    "green_variety": (hued(140, 30), hued(np.where(RIGHT, 120, 160), 30)),
    "hue_lead": (hued(HALF, 30), hued(60, 30)),
    "hue_spread": (hued(60, 30), hued(np.where(RIGHT, 10, 100), 30)),
    "light_chroma": (
        hued(60, np.where(RIGHT, 2, 20), np.where(RIGHT, 90, 40)),
        hued(80, np.where(RIGHT, 40, 20), np.where(RIGHT, 80, 40)),
    ),
    "loud_area": (
        hued(30, np.where(SPOT, 55, 10)),
        hued(30, np.where(disc(128, 128, 100), 55, 10)),
    ),
    "mud": (hued(240, 20, 40.0), hued(70, 15, 35.0)),
    "palette_size": (hued(60, 30), hued(COLUMNS * 360 / SIDE, 30)),
    "shadow_chroma": (
        hued(30, np.where(RIGHT, 1, 30), np.where(RIGHT, 15, 60)),
        hued(30, np.where(RIGHT, 30, 15), np.where(RIGHT, 25, 60)),
    ),
    "sky_hue_range": (
        landscape(sky_a=-5, sky_b=-15),
        landscape(sky_a=-5, sky_b=-30 * SKY_FADE + 5),
    ),
    "temperature_opposition": (
        hued(60, 20, np.where(RIGHT, 80, 30)),
        hued(np.where(RIGHT, 60, 240), 20, np.where(RIGHT, 80, 30)),
    ),
    "temperature_play": (hued(60, 20), hued(60 + 90 * (gratings(256) > 0), 20)),
    "dark_linkage": (
        painted(75 - 60 * STONES),
        painted(75 - 60 * box(100, 40, 170, 220)),
    ),
    "darkest_area": (
        painted(np.where(disc(128, 128, 24), 5, 70)),
        painted(np.where(disc(128, 128, 110), 5, 70)),
    ),
    "halo": (
        painted(np.where(disc(128, 128, 18), 95, 30)),
        painted(30 + 65 * np.exp(-np.hypot(ROWS - 128, COLUMNS - 128) / 60)),
    ),
    "highlight_scatter": (painted(50 + 45 * SPOT), painted(50 + 45 * ECHOES)),
    "light_dark_separation": (
        painted(ROWS * 100 / SIDE),
        painted(np.where(RIGHT, 85, 15) + NOISE),
    ),
    "light_falloff": (
        painted(CHECKS - 30),
        painted(90 - 70 * np.hypot(ROWS - 128, COLUMNS - 128) / 181),
    ),
    "pattern_strength": (painted(50 + 20 * np.sign(gratings(256))), painted(FIELD)),
    "shadow_detail": (
        painted(np.where(RIGHT, 15, 80)),
        painted(np.where(RIGHT, 18 + SMOOTH_NOISE, 80)),
    ),
    "value_fragmentation": (
        painted(np.where(RIGHT, 80, 30)),
        painted(50 + 15 * np.sign(gratings(256))),
    ),
    "value_range": (painted(np.where(RIGHT, 60, 40)), painted(np.where(RIGHT, 90, 10))),
    "finish_focus": (
        painted(50 + 6 * NOISE),
        painted(50 + 6 * NOISE * disc(128, 128, 60)),
    ),
    "spelled_detail": (painted(50 + SMOOTH_NOISE), painted(50 + 6 * NOISE)),
    "stroke_flow": (painted(50 + 10 * gratings(16)), painted(50 + 10 * gratings(256))),
    "stroke_order": (painted(50 + 10 * gratings(12)), painted(50 + 10 * gratings(256))),
    "surface_life": (painted(60 + 0.3 * NOISE), painted(60 + 1.5 * NOISE)),
    "touch_variety": (
        painted(50 + 6 * NOISE),
        painted(50 + np.where(RIGHT, 6 * NOISE, 3 * SMOOTH_NOISE)),
    ),
    "background_quiet": (
        painted(50 + 20 * BLOCKS * ~disc(140, 128, 80)),
        painted(50 + 20 * BLOCKS * disc(140, 128, 70)),
    ),
    "color_fade": (
        landscape(sky_b=-10, near_b=10, far_b=30),
        landscape(sky_b=-10, near_b=30, far_b=5),
    ),
    "recession": (landscape(far=20), landscape(far=65)),
    "sky_vault": (landscape(sky=85.0), landscape(sky=88 - 25 * SKY_FADE)),
    "contour_run": (
        painted(60 - 40 * (gratings(16) > 0.6)),
        painted(60 - 40 * disc(128, 128, 90)),
    ),
    "edge_sharpness": (painted(FIELD), painted(np.where(RIGHT, 80, 30))),
    "edge_firmness": (painted(FIELD), painted(np.where(RIGHT, 80, 30))),
    "edge_variety": (
        painted(np.where(RIGHT, 80, 30)),
        painted(np.where(ROWS < 128, np.where(RIGHT, 67, 43), FIELD)),
    ),
    "shape_tautness": (
        painted(60 - 40 * (disc(70, 70, 30) | disc(70, 186, 30) | disc(186, 128, 30))),
        painted(60 - 40 * (box(40, 60, 50, 200) | box(100, 60, 110, 200))),
    ),
}


@pytest.fixture(scope="module")
def criteria():
    return tree.parse(CRITERIA / "painting.yaml")


def test_forty_of_the_pairs_of_painting_are_measured(criteria):
    found = measured.measured(criteria)

    assert len(found) >= 40
    assert len({one.name for one in found.values()}) == len(found)  # each by its own measure
    assert {path.split("/")[0] for path in found} == {
        "composition",
        "color-relations",
        "light-and-shadow",
        "brushstroke-and-texture",
        "space-and-perspective",
        "form-and-line",
    }


def test_every_measure_serves_a_criterion(criteria):
    starter = tree.parse(CRITERIA / "starter.yaml")
    used = [one.name for t in (criteria, starter) for one in measured.measured(t).values()]

    assert set(used) == set(measured.MEASURES)


def test_every_measure_says_what_it_is():
    for name in measured.MEASURES:
        assert {"what", "Unit", "Silent", "Limits"} <= measured.explained(name).keys(), name


@pytest.mark.parametrize("name", measured.MEASURES)
def test_a_measure_knows_less_from_more(name):
    low, high = (number(name, picture) for picture in KNOWN[name])

    assert low < high


@pytest.mark.parametrize("name", measured.MEASURES)
def test_a_mirror_changes_nothing(name):
    for picture in KNOWN[name]:
        assert number(name, picture[:, ::-1]) == pytest.approx(
            number(name, picture), rel=0.1, abs=0.02, nan_ok=True
        )


@pytest.mark.parametrize("name", measured.MEASURES)
def test_a_little_noise_and_twice_the_size_keep_the_order(name):
    source = np.random.default_rng(1)
    noisy, large = [], []
    for picture in KNOWN[name]:
        grain = source.normal(0, 1.5, picture.shape)
        noisy.append(np.clip(picture + grain, 0, 255).astype(np.uint8))
        large.append(np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1))

    assert number(name, noisy[0]) < number(name, noisy[1])
    assert number(name, large[0]) < number(name, large[1])


@pytest.mark.parametrize("value", [0, 120, 255])
def test_of_an_empty_canvas_hardly_anything_is_said(value, criteria):
    values = measured.values(np.full((SIDE, SIDE, 3), value, np.uint8), criteria)

    spoken = {
        measured.measured(criteria)[p].name for p, v in values.items() if not math.isnan(v)
    }
    assert spoken <= {"clutter", "value_range", "darkest_area", "shadow_detail"}


def test_of_a_picture_without_colour_no_colour_is_judged(criteria):
    said = measured.judge(painted(50 + SMOOTH_NOISE), criteria)

    colour = [path.split("/")[-1] for path, _, _ in said if path.startswith("color-relations")]
    assert colour == []


def test_marks_are_not_judged_where_they_are_not_resolved(criteria):
    picture = painted(50 + 6 * NOISE)[:160, :160]

    said = [path for path, _, _ in measured.judge(picture, criteria)]

    assert not [path for path in said if path.startswith("brushstroke-and-texture")]


def test_edges_of_an_enlarged_picture_are_not_judged():
    for name in ("edge_sharpness", "edge_firmness", "edge_variety", "contour_run"):
        assert math.isnan(number(name, painted(CHECKS)[:100, :100]))


def test_without_a_sky_nothing_is_said_of_air(criteria):
    said = [path for path, _, _ in measured.judge(painted(CHECKS), criteria)]

    assert not [path for path in said if "/atmosphere/" in path]


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (3, 700), (700, 3), (40, 2000), (255, 257)])
@pytest.mark.parametrize("name", ["noise", "black", "line"])
def test_every_shape_is_measured_or_passed_over(shape, name, criteria):
    picture = np.zeros((*shape, 3), np.uint8)
    if name == "noise":
        picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    if name == "line":
        picture[shape[0] // 2] = 255

    for _, _, confidence in measured.judge(picture, criteria):
        assert 0.5 <= confidence <= 1


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    colours=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
@example(height=128, width=1, colours=[(0, 0, 0)], seed=0)
@example(height=2, width=128, colours=[(0, 0, 0), (9, 200, 9)], seed=0)
@example(height=1, width=256, colours=[(0, 0, 0), (255, 255, 255)], seed=0)
def test_a_measure_is_finite_or_nan(height, width, colours, seed):
    chosen = np.random.default_rng(seed).integers(0, len(colours), (height, width))
    seen = View(np.array(colours, np.uint8)[chosen])

    for name, measure in measured.MEASURES.items():
        assert not math.isinf(measure(seen)), name


def test_three_tones_are_parted_between_them():
    tones = np.repeat(np.array([10.0, 50.0, 90.0], np.float32), 100)

    low, high = view.thresholds(tones)

    assert 10 < low < 50 < high < 90


def test_two_tones_are_all_of_the_variance_and_an_even_ramp_three_quarters():
    assert view.separation(np.repeat(np.float32([10, 90]), 50))[1] == pytest.approx(1)
    ramp = np.linspace(0, 100, 6400, dtype=np.float32)
    assert view.separation(ramp)[1] == pytest.approx(0.75, abs=0.005)


def test_fields_are_means_of_their_places():
    plane = np.arange(36, dtype=np.float32).reshape(6, 6)

    assert np.allclose(view.gridded(plane, 2), [[7, 10], [25, 28]], rtol=1e-6)
    assert view.halved(np.ones((5, 7), np.float32)).shape == (2, 3)


def test_one_value_everywhere_has_no_inequality_and_one_place_alone_nearly_all():
    from atelier.annotators.measured.color import gini

    assert gini(np.full(100, 3.0, np.float32)) == pytest.approx(0)
    assert gini(np.eye(1, 100, dtype=np.float32)) == pytest.approx(0.99)
