import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.color import lab2rgb

from atelier.annotators import measured
from atelier.annotators.inspection import Limits
from atelier.annotators.measured import View, brushwork, color, composition, form, light, space
from atelier.criteria import tree
from atelier.errors import CriteriaError
from atelier.reporting import silent
from atelier.starter import drawings

STARTER_TREE = Path(__file__).parents[3] / "params" / "criteria" / "starter.yaml"
ROWS, COLUMNS = np.mgrid[0:128, 0:128]


@pytest.fixture(scope="module")
def criteria():
    return tree.parse(STARTER_TREE)


def painted(values, a=0.0, b=0.0):
    lab = np.stack(np.broadcast_arrays(np.asarray(values, float), a, b), axis=-1)
    return np.rint(255 * lab2rgb(np.broadcast_to(lab, (128, 128, 3)))).astype(np.uint8)


def test_one_hue_has_no_spread():
    assert color.hue_spread(View(painted(60, 30, 20))) == pytest.approx(0, abs=0.5)


def test_two_equal_hues_at_a_right_angle_spread_by_their_resultant():
    # resultant length cos 45° = 0.7071: sqrt(-2 ln 0.7071) = 0.8326 rad = 47.7°
    left = COLUMNS < 64
    picture = painted(60, np.where(left, 30, 0), np.where(left, 0, 30))

    assert color.hue_spread(View(picture)) == pytest.approx(47.7, abs=1.5)


def test_grey_has_no_hues_to_compare():
    assert math.isnan(color.hue_spread(View(painted(COLUMNS / 1.5))))


def test_value_range_is_the_difference_of_lightness():
    picture = painted(np.where(ROWS < 64, 80, 30))

    assert light.value_range(View(picture)) == pytest.approx(50, abs=0.5)


def test_a_few_white_pixels_do_not_widen_the_value_range():
    picture = painted(np.where(ROWS < 64, 60, 50))
    picture[10:12, 10:14] = 255

    assert light.value_range(View(picture)) == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize(("far", "expected"), [(60, 2 / 3), (20, 0.0)])
def test_recession_compares_far_and_near_ground(far, expected):
    # sky 80, far ground, near ground 20: (far - 20) / (80 - 20)
    values = np.where(ROWS < 50, 80, np.where(ROWS < 96, far, 20))

    assert space.recession(View(painted(values))) == pytest.approx(expected, abs=0.02)


def test_without_sky_over_ground_there_is_no_recession():
    for values in (np.where(ROWS < 64, 20, 80), np.where(COLUMNS < 64, 20, 80)):
        assert math.isnan(space.recession(View(painted(values))))


@pytest.mark.parametrize(("middles", "offset"), [([64], 0), ([24, 104], 0), ([24], 0.3125)])
def test_mass_offset_is_the_distance_of_the_weight_from_the_axis(middles, offset):
    masses = np.minimum.reduce([np.abs(COLUMNS + 0.5 - m) for m in middles]) < 10
    picture = painted(np.where(masses & (np.abs(ROWS - 64) < 30), 20, 70))

    assert composition.mass_offset(View(picture)) == pytest.approx(offset, abs=0.01)


def test_layers_weigh_nothing():
    layers = painted(20 + 20 * (ROWS // 32))
    layers[80:100, 54:74] = 0

    assert composition.mass_offset(View(layers)) == pytest.approx(0, abs=0.01)


def test_one_light_is_not_scattered_and_four_are():
    def lights(*places):
        near = [np.hypot(ROWS - y, COLUMNS - x) < 6 for y, x in places]
        return View(painted(np.where(np.any(near, axis=0), 95, 50)))

    one = light.highlight_scatter(lights((40, 90)))
    four = light.highlight_scatter(lights((24, 24), (24, 104), (104, 24), (104, 104)))

    assert one < 0.05
    # each is 40 * sqrt(2) pixels from the middle: 56.6 / 128 = 0.44
    assert four == pytest.approx(0.44, abs=0.02)


def test_a_step_is_crisp_wherever_it_stands():
    # 7% of 128 columns are the 9 nearest, 2 pixels away in the median, 1 after the maximum:
    # 3 * exp(-(1.5^2 / 1.5^2 - 2.5^2 / 4.5^2) / 2) = 2.1, half a pixel for the step itself
    for place in (40, 64, 90):
        step = View(painted(np.where(place <= COLUMNS, 70, 30)))
        assert form.edge_sharpness(step) == pytest.approx(2.1, abs=0.1)


def test_a_blurred_step_loses_sharpness_by_the_formula():
    # blurred by 5: sqrt((4.5^2 + 25) / (1.5^2 + 25)) = 1.29
    soft = painted(ndimage.gaussian_filter(np.where(COLUMNS < 64, 30.0, 70.0), 5))

    assert form.edge_sharpness(View(soft)) == pytest.approx(1.29, abs=0.12)


def test_stripes_flow_and_cells_do_not():
    stripes = painted(50 + 10 * np.sin(2 * np.pi * (COLUMNS + ROWS / 3) / 7))
    cells = painted(50 + 10 * np.sin(2 * np.pi * COLUMNS / 7) * np.sin(2 * np.pi * ROWS / 7))

    assert brushwork.stroke_flow(View(stripes)) > 0.9
    assert brushwork.stroke_flow(View(cells)) < 0.2


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (64, 1000), (300, 300)])
def test_every_shape_is_measured(shape, criteria):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)

    for _, _, confidence in measured.judge(pixels, criteria):
        assert 0.5 <= confidence <= 1


def test_an_empty_canvas_is_flat_and_nothing_else(criteria):
    said = measured.judge(np.full((128, 128, 3), 120, np.uint8), criteria)

    assert [(path, pole) for path, pole, _ in said] == [("light/contrast", "negative")]


@pytest.mark.parametrize("subject", drawings.SUBJECTS)
def test_one_fault_is_seen_and_no_other(subject, criteria):
    for fault in drawings.study(subject, "blue").poles:
        drawing = drawings.study(subject, "blue", bad=[fault])
        said = {path: pole for path, pole, _ in measured.judge(drawing.pixels, criteria)}
        assert said.items() <= drawing.poles.items()
        assert len(said) >= len(drawing.poles) - 1  # one may be left open


def test_a_larger_copy_is_judged_alike(criteria):
    for drawing in drawings.paintings(10, seed=3):
        large = np.repeat(np.repeat(drawing.pixels, 3, axis=0), 3, axis=1)
        small = {path: pole for path, pole, _ in measured.judge(drawing.pixels, criteria)}
        for path, pole, _ in measured.judge(large, criteria):
            assert small.get(path, pole) == pole


def test_clipped_and_saturated_colours_hide_no_fault(criteria):
    # Values excepted: raising contrast is what that criterion asks for.
    flattered = total = 0
    for drawing in drawings.sketchbook(40, seed=3):
        pixels = drawing.pixels.astype(float)
        grey = pixels.mean(axis=-1, keepdims=True)
        garish = 128 + 1.5 * (grey + 1.6 * (pixels - grey) - 128)
        after = measured.judge(np.clip(garish, 0, 255).astype(np.uint8), criteria)
        for path, pole, _ in after:
            if path != "light/contrast" and drawing.poles.get(path) == "negative":
                total += 1
                flattered += pole == "positive"

    assert flattered / total < 0.05


def test_confidence_grows_with_the_distance_from_the_threshold():
    measure = tree.Measure(name="value_range", positive_at=40, negative_at=30)

    at, one_gap, far = (measured._confidence(v, "positive", measure) for v in (40, 50, 90))

    assert at == 0.5
    assert one_gap == pytest.approx(0.9)
    assert 0.99 < far <= 1


def test_between_the_thresholds_nothing_is_said(criteria):
    contrast = criteria.leaves()["light/contrast"].measure
    middle = (contrast.positive_at + contrast.negative_at) / 2
    picture = painted(np.where(ROWS < 64, 40 + middle, 40))

    assert "light/contrast" not in [path for path, _, _ in measured.judge(picture, criteria)]


def test_a_measure_that_does_not_exist_is_named_with_those_that_do(criteria):
    values = criteria.model_dump()
    values["criteria"]["light"]["branches"]["contrast"]["measure"]["name"] = "notan"

    with pytest.raises(CriteriaError, match=r"light/contrast: measure.name .*value_range"):
        measured.judge(np.zeros((64, 64, 3), np.uint8), tree.Tree.model_validate(values))


def test_two_pictures_are_compared_by_their_measures_whatever_the_order(criteria, tmp_path):
    good, bad = (
        drawings.study("landscape", "blue", bad=bad) for bad in ((), drawings.CRITERIA)
    )
    files = []
    for name, drawing in (("good", good), ("bad", bad)):
        files.append(tmp_path / f"{name}.png")
        files[-1].write_bytes(drawings.png(drawing.pixels))
    judge = measured.Measured(criteria, Limits(1, 10**6, None))

    forth, back, same = judge.compare_many(
        [(files[0], files[1]), (files[1], files[0]), (files[0], files[0])],
        ["light/contrast", "brushwork/edges"],
        silent,
    )

    assert forth.settled == {"light/contrast": "first", "brushwork/edges": "first"}
    assert back.settled == {"light/contrast": "second", "brushwork/edges": "second"}
    assert set(same.settled.values()) == {"neither"}
