import math

import numpy as np
import pytest
import scipy.stats

from atelier.metrics import statistics
from atelier.metrics.statistics import Interval

TRIALS = 600


def one_each(values):
    return np.arange(len(values))


def assert_held(held, trials=TRIALS):
    """As often as 95% intervals hold the truth, within three binomial errors."""
    error = math.sqrt(0.95 * 0.05 / trials)
    assert abs(held / trials - 0.95) < 3 * error


def test_values_that_agree_leave_no_doubt():
    assert statistics.mean([3, 3, 3, 3], [1, 2, 3, 4]) == Interval(3, 3, 3, 4)


def test_the_mean_of_images_with_a_caption_each_is_students():
    values = np.random.default_rng(1).normal(3, size=12)

    ours = statistics.mean(values, one_each(values))

    low, high = scipy.stats.t.interval(0.95, 11, values.mean(), scipy.stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx((low, high))


def test_repeated_captions_by_hand():
    # Sums of the deviations from 2 are -2, 0, 2; s² = 3/2 · (4 + 0 + 4) / 6² = 1/3
    # and t with 2 degrees of freedom is 4.3027
    interval = statistics.mean([1, 1, 2, 2, 3, 3], ["a", "a", "b", "b", "c", "c"])

    half = 4.302653 * math.sqrt(1 / 3)
    assert (interval.low, interval.high) == pytest.approx((2 - half, 2 + half))
    assert interval.count == 6


def test_a_picture_shown_twice_is_no_second_picture():
    values, captions = np.array([1.0, 2.0, 4.0]), ["a", "b", "c"]

    once = statistics.mean(values, captions)
    twice = statistics.mean(np.repeat(values, 2), np.repeat(captions, 2))

    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_one_caption_says_nothing_of_others():
    assert statistics.mean([1, 2, 3], ["a"] * 3) == Interval(2, -math.inf, math.inf, 3)
    assert statistics.count([1, 2, 3], ["a"] * 3, most=7) == Interval(2, 0, 7, 3)
    assert statistics.share([False] * 3, ["a"] * 3) == Interval(0, 0, 1, 3)


def repeated(random, images, captions):
    """Captions as a test part has them: some are painted often, some once."""
    return np.repeat(np.arange(captions), random.multinomial(images, [1 / captions] * captions))


@pytest.mark.parametrize("captions", [12, 24])
def test_repeated_captions_hold_the_truth_about_as_often_as_they_say(captions):
    """Half of the variance lies between captions; images alone would give 66% and 83%."""
    random = np.random.default_rng(captions)
    held = 0

    for _ in range(TRIALS):
        of = repeated(random, 100, captions)
        values = random.normal(size=captions)[of] + random.normal(size=100)
        interval = statistics.mean(values, of)
        held += interval.low <= 0 <= interval.high

    assert_held(held)


def test_sparse_counts_hold_the_truth_about_as_often_as_they_say():
    """A mean of 0.1 over 20 images: one set in seven has no count at all."""
    random = np.random.default_rng(1)
    held = 0

    for _ in range(TRIALS):
        values = random.poisson(0.1, 20)
        interval = statistics.count(values, one_each(values), most=7)
        held += interval.low <= 0.1 <= interval.high

    assert_held(held)


def test_counts_of_repeated_captions_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(2)
    held = 0

    for _ in range(TRIALS):
        of = repeated(random, 100, 24)
        chance = random.beta(0.3, 2.7, size=(24, 7))  # a tenth of each of seven criteria
        values = random.binomial(1, chance[of]).sum(axis=1)
        interval = statistics.count(values, of, most=7)
        held += interval.low <= 0.7 <= interval.high

    assert_held(held)


def test_what_was_never_seen_keeps_a_width():
    interval = statistics.count([0] * 30, range(30), most=7)

    assert (interval.estimate, interval.low) == (0, 0)
    # (0 - u)² = t² u (1 - u/7) / 30, so that u = (t²/30) / (1 + t²/30/7); t = 2.0452
    assert interval.high == pytest.approx(0.13943 / (1 + 0.13943 / 7), rel=1e-4)
    assert statistics.count([7] * 30, range(30), most=7).low == pytest.approx(7 - interval.high)


def test_many_counts_have_students_interval():
    values = np.random.default_rng(0).poisson(4, size=400)

    ours = statistics.count(values, one_each(values))

    student = statistics.mean(values, one_each(values))
    assert (ours.low, ours.high) == pytest.approx((student.low, student.high), rel=0.01)


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="counts between 0 and 7"):
        statistics.count([8], ["a"], most=7)
    with pytest.raises(ValueError, match="counts between 0 and inf"):
        statistics.count([-1], ["a"])


def test_shifting_and_scaling_the_values_shifts_and_scales_the_interval():
    values = np.random.default_rng(0).normal(size=30)
    plain = statistics.mean(values, one_each(values))

    moved = statistics.mean(2 * values + 1, one_each(values))

    for ours, expected in zip(
        (moved.estimate, moved.low, moved.high),
        (plain.estimate, plain.low, plain.high),
        strict=True,
    ):
        assert ours == pytest.approx(2 * expected + 1)


def test_a_paired_difference_forgets_what_the_prompt_itself_does():
    prompt = np.random.default_rng(0).normal(scale=100, size=40)

    difference = statistics.difference(prompt + 2, prompt, one_each(prompt))

    assert difference.low == pytest.approx(2)
    assert difference.high == pytest.approx(2)


def test_a_difference_of_unpaired_values_is_refused():
    with pytest.raises(ValueError, match="differ"):
        statistics.difference([1, 2, 3], [1, 2], ["a", "b", "c"])
    with pytest.raises(ValueError, match="captions"):
        statistics.mean([1, 2, 3], ["a", "b"])


@pytest.mark.parametrize("values", [[], [[1.0]], [math.nan], [1.0, math.inf]])
def test_what_is_no_list_of_finite_numbers_is_refused(values):
    with pytest.raises(ValueError, match="one finite number an image"):
        statistics.mean(values, range(len(values)))


def test_a_share_by_hand():
    # t² = 5.1169 with 9 degrees of freedom; 0.25 / 9 is the variance of ten that differ, so
    # that (0.5 - u)² = t²/9 · u (1 - u): u = 0.5 ± 0.5 √(r / (1 + r)), r = 5.1169 / 9
    interval = statistics.share([True, False] * 5, range(10))

    half = 0.5 * math.sqrt(0.568542 / 1.568542)
    assert (interval.low, interval.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-4)


@pytest.mark.parametrize(("hits", "count"), [(1, 40), (30, 170), (99, 100), (400, 1000)])
def test_a_share_of_many_images_is_close_to_wilsons(hits, count):
    ours = statistics.share(np.arange(count) < hits, range(count))

    theirs = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.1)
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


def test_a_share_is_never_surer_than_of_independent_images():
    """Each caption has one hit and one miss, as if captions forbade chance."""
    interval = statistics.share([True, False] * 20, np.repeat(range(20), 2))

    assert interval.high - interval.low > 0.29  # Wilson's for 40 images


def test_wins_leave_out_the_pairs_that_are_equal():
    found = statistics.wins([1, 2, 3, 4, 5], [0, 1, 3, 5, 4], list("aabbc"))

    assert (found.estimate, found.count) == (0.75, 4)
    assert statistics.wins([1, 2], [1, 2], ["a", "b"]) is None


@pytest.mark.parametrize(("seeds", "effect"), [(3, 0.0), (3, 0.3), (5, 0.3), (5, 1.0)])
def test_two_crossed_sources_hold_the_truth_about_as_often_as_they_say(seeds, effect):
    """Cells of seeds and captions with effects of both; captions alone would give 30 to 95%."""
    random = np.random.default_rng(seeds)
    held = 0

    for _ in range(TRIALS):
        cells = (
            effect * random.normal(size=(seeds, 1))
            + 0.5 * random.normal(size=30)
            + random.normal(size=(seeds, 30))
        )
        center = cells.mean()
        residuals = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0) + center
        squared = statistics.squared_margin(
            (cells - center) / cells.size, residuals / cells.size
        )
        held += center**2 <= squared

    assert_held(held)


def test_one_row_is_columns_alone():
    values = np.random.default_rng(0).normal(size=9)
    parts = (values - values.mean())[None] / 9

    interval = statistics.mean(values, one_each(values))
    assert math.sqrt(statistics.squared_margin(parts)) == pytest.approx(
        interval.high - interval.estimate
    )
