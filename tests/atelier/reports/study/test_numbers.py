import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.metrics import statistics
from atelier.reports.study import numbers as study


def names(count):
    return [f"caption {number}" for number in range(count)]


def test_the_difference_over_seeds_and_captions_by_hand():
    # Column sums of the deviations / 4 are -1/4 and 1/4: V = 2 · 2/16 = 1/4. Row sums are -1/2
    # and 1/2: V = 1. The cells alone are -1/2 and 1/2 of 4: 4/64, and 2 · 2 times that.
    cells = [[1.0, 1.0], [2.0, 4.0]]

    found = study.crossed_difference(cells, np.zeros((2, 2)), names(2))

    quantile = statistics.quantile_squared(2)
    half = math.sqrt(quantile * 1 / 4 + quantile * (1 - 1 / 4))
    assert (found.estimate, found.count) == (2, 4)
    assert found.high - found.estimate == pytest.approx(half)


@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0])
def test_three_seeds_hold_the_truth_about_as_often_as_they_say(effect):
    """Percentiles of crossed resamples, as in the first version, hold it in 75 to 88%."""
    random = np.random.default_rng(3)
    trials, held = 600, 0

    for _ in range(trials):
        of = np.repeat(np.arange(24), random.multinomial(72, [1 / 24] * 24))
        cells = (
            effect * random.normal(size=(3, 1))
            + 0.5 * random.normal(size=24)[of]
            + random.normal(size=(3, 72))
        )
        found = study.crossed_difference(cells, np.zeros((3, 72)), [str(c) for c in of])
        held += found.low <= 0 <= found.high

    assert abs(held / trials - 0.95) < 3 * math.sqrt(0.95 * 0.05 / trials)


def test_what_no_seed_ever_showed_keeps_a_width():
    found = study.crossed_count(np.zeros((3, 30)), names(30), most=7)

    assert (found.estimate, found.low) == (0, 0)
    assert found.high == statistics.count(np.zeros(30), names(30), most=7).high


def test_one_seed_gives_the_interval_of_captions():
    values = np.random.default_rng(0).poisson(3, size=400)
    captions = names(40) * 10

    found = study.crossed_count(values[None], captions, most=20)

    alone = statistics.count(values, captions, most=20)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


@given(st.floats(-5, 5), st.integers(0, 100))
def test_what_prompts_and_seeds_do_to_both_cancels_in_the_difference(shift, seed):
    cells = np.random.default_rng(seed).normal(size=(3, 7))

    found = study.crossed_difference(cells + shift, cells, names(7))

    assert found.low == pytest.approx(shift, abs=1e-9)
    assert found.high == pytest.approx(shift, abs=1e-9)


@pytest.mark.parametrize("cells", [[], [1.0, 2.0], [[np.nan]], np.zeros((2, 0))])
def test_what_is_no_table_of_cells_is_refused(cells):
    with pytest.raises(ValueError, match="one finite number a seed and prompt"):
        study.crossed_count(cells, ["a"], most=7)


def test_pairs_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="differ"):
        study.crossed_difference(np.zeros((2, 3)), np.zeros((3, 3)), names(3))
    with pytest.raises(ValueError, match="2 captions of 3 prompts"):
        study.crossed_count(np.zeros((2, 3)), names(2), most=7)


def test_steps_to_a_level():
    curve = {80: 1.0, 20: 3.0, 40: 2.0}

    assert study.first_below(curve, 2.0) == 40
    assert study.first_below(curve, 0.5) is None


def test_the_area_that_three_points_dominate_by_hand():
    # Inside of (4, 4): the columns 1..2, 2..3 and 3..4 are 1, 2 and 3 high.
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0)]

    assert study.hypervolume(points, (4.0, 4.0)) == 1 + 2 + 3
    assert study.hypervolume([*points, (3.0, 3.5), (5.0, 0.1)], (4.0, 4.0)) == 6
    assert study.hypervolume([(4.0, 0.0)], (4.0, 4.0)) == 0
    assert study.hypervolume([], (4.0, 4.0)) == 0


def test_the_jackknife_of_a_mean_is_students_interval():
    values = np.array([1.0, 2.0, 6.0, 7.0])
    captions = names(4)
    means = [values[part].mean() for part in study.without_each(captions)]

    found = study.jackknife(means, 4)

    student = statistics.mean(values, captions)
    assert found.estimate == student.estimate == 4
    assert (found.low, found.high) == pytest.approx((student.low, student.high))


def test_the_jackknife_of_two_captions_by_hand():
    # (G-1)/G Σ (v_g - 3)² = 1/2 (4 + 4) = 4, so half is the quantile times 2.
    found = study.jackknife([2.5, 1.0, 5.0], 7)

    assert found.count == 7
    assert found.high - 2.5 == pytest.approx(2 * math.sqrt(statistics.quantile_squared(2)))


def test_captions_are_left_out_whole():
    parts = study.without_each(["a", "b", "a"])

    assert [part.tolist() for part in parts] == [
        [True, True, True], [False, True, False], [True, False, True]
    ]  # fmt: skip


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, np.nan, 2.0]])
def test_what_leaves_no_two_captions_has_no_jackknife(values):
    with pytest.raises(ValueError, match="with and without each of two captions"):
        study.jackknife(values, 3)
