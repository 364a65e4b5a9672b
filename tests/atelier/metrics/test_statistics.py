import math

import numpy as np
import pytest
import scipy.stats

from atelier.metrics import statistics
from atelier.metrics.statistics import Interval


def test_values_that_agree_leave_no_doubt():
    interval = statistics.mean([3, 3, 3, 3], resamples=100, seed=0)

    assert interval == Interval(3, 3, 3, 4)


def test_the_ends_of_two_values_by_hand():
    # Resampled means of (0, 1): 0 with probability 1/4, 1/2 with 1/2, 1 with 1/4.
    interval = statistics.mean([0, 1], resamples=1000, seed=0)

    assert interval == Interval(0.5, 0.0, 1.0, 2)


def test_the_mean_agrees_with_scipy():
    values = np.random.default_rng(1).poisson(3, size=60)

    ours = statistics.mean(values, resamples=20_000, seed=0)

    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_one_seed_gives_one_interval_however_the_work_is_cut(monkeypatch):
    values = np.arange(7.0)
    whole = statistics.mean(values, resamples=50, seed=3)

    monkeypatch.setattr(statistics, "_CHUNK", 7 * 8)

    assert statistics.mean(values, resamples=50, seed=3) == whole


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    held = 0

    for trial in range(300):
        interval = statistics.mean(generator.poisson(3, 80), resamples=400, seed=trial)
        held += interval.low <= 3 <= interval.high

    # 285 expected; the percentile interval is a little short at 80 images
    assert 270 <= held <= 297


def test_shifting_and_scaling_the_values_shifts_and_scales_the_interval():
    values = np.random.default_rng(0).normal(size=30)
    plain = statistics.mean(values, resamples=200, seed=5)

    moved = statistics.mean(2 * values + 1, resamples=200, seed=5)

    for ours, expected in zip(
        (moved.estimate, moved.low, moved.high),
        (plain.estimate, plain.low, plain.high),
        strict=True,
    ):
        assert ours == pytest.approx(2 * expected + 1)


def test_a_paired_difference_forgets_what_the_prompt_itself_does():
    prompt = np.random.default_rng(0).normal(scale=100, size=40)

    difference = statistics.difference(prompt + 2, prompt, resamples=100, seed=0)

    assert difference.low == pytest.approx(2)
    assert difference.high == pytest.approx(2)


def test_a_difference_of_unpaired_values_is_refused():
    with pytest.raises(ValueError, match="differ"):
        statistics.difference([1, 2, 3], [1, 2], resamples=10, seed=0)


@pytest.mark.parametrize("values", [[], [[1.0]], [math.nan], [1.0, math.inf]])
def test_what_is_no_list_of_finite_numbers_is_refused(values):
    with pytest.raises(ValueError, match="one finite number an image"):
        statistics.mean(values, resamples=10, seed=0)


def test_a_share_by_hand():
    # z² = 3.8415; (0.5 ± 1.95996 √(0.025 + 3.8415/400) + 3.8415/20) / (1 + 3.8415/10)
    interval = statistics.share(5, 10)

    assert interval.estimate == 0.5
    assert interval.low == pytest.approx(0.23659, abs=1e-5)
    assert interval.high == pytest.approx(0.76341, abs=1e-5)


@pytest.mark.parametrize(("hits", "count"), [(0, 1), (0, 10), (3, 17), (10, 10), (99, 100)])
def test_a_share_agrees_with_scipy(hits, count):
    ours = statistics.share(hits, count)

    theirs = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


@pytest.mark.parametrize(("hits", "count"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_what_is_no_share_is_refused(hits, count):
    with pytest.raises(ValueError, match="is no share"):
        statistics.share(hits, count)
