import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.reports.study import numbers as study


def test_the_mean_over_seeds_and_prompts_by_hand():
    found = study.crossed_mean([[1, 2], [3, 6]], resamples=500, seed=0)

    assert found.estimate == 3
    assert found.count == 4
    assert 1 <= found.low < 3 < found.high <= 6


def test_a_resample_takes_whole_seeds_and_whole_prompts():
    # One seed is 0 throughout, the other 1: the ends are resamples of one seed alone.
    cells = np.repeat([[0.0], [1.0]], 50, axis=1)

    found = study.crossed_mean(cells, resamples=2000, seed=0)

    assert (found.low, found.high) == pytest.approx((0, 1))


def test_one_seed_gives_the_interval_of_prompts():
    source = np.random.default_rng(0)
    numbers = source.normal(size=400)

    found = study.crossed_mean(numbers[None], resamples=4000, seed=1)

    half = 1.96 * numbers.std() / 20
    assert found.low == pytest.approx(numbers.mean() - half, abs=0.02)
    assert found.high == pytest.approx(numbers.mean() + half, abs=0.02)


@given(st.floats(-5, 5), st.integers(0, 100))
def test_what_prompts_and_seeds_do_to_both_cancels_in_the_difference(shift, seed):
    cells = np.random.default_rng(seed).normal(size=(3, 7))

    found = study.crossed_difference(cells + shift, cells, resamples=50, seed=0)

    assert found.low == pytest.approx(shift, abs=1e-9)
    assert found.high == pytest.approx(shift, abs=1e-9)


@pytest.mark.parametrize("cells", [[], [1.0, 2.0], [[np.nan]], np.zeros((2, 0))])
def test_what_is_no_table_of_cells_is_refused(cells):
    with pytest.raises(ValueError, match="one finite number a seed and prompt"):
        study.crossed_mean(cells, resamples=10, seed=0)


def test_pairs_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="differ"):
        study.crossed_difference(np.zeros((2, 3)), np.zeros((3, 3)), resamples=10, seed=0)


def test_steps_to_a_level():
    curve = {80: 1.0, 20: 3.0, 40: 2.0}

    assert study.first_below(curve, 2.0) == 40
    assert study.first_below(curve, 0.5) is None


def test_a_sweet_spot_lies_inside_of_what_was_tried():
    assert study.sweet_spot({2: 1.5, 5: 1.2, 10: 1.3})
    assert not study.sweet_spot({2: 1.5, 5: 1.3, 10: 1.2})
    assert not study.sweet_spot({2: 1.1, 5: 1.3})
