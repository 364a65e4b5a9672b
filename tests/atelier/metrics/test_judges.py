import numpy as np
import pytest

from atelier.metrics import judges
from atelier.metrics.comparison import Painted


def painted(first, second):
    """Pictures that two judges saw: one letter each, a dot is silence."""
    words = {"+": "positive", "-": "negative"}

    def found(word):
        return [{"light": words[sign]} if sign != "." else {} for sign in word]

    return Painted([], found(first), found(second))


def test_the_pictures_of_all_painters_are_counted():
    found = judges.compare(
        {"base": painted("--+.", "-++-"), "theta": painted("++-+", "++--")}, list("abcd")
    )

    one = found["light"]
    assert (one.counts.both, one.counts.both_negative, one.counts.both_positive) == (7, 2, 3)
    # annotator alone bad: the second picture of base; the other way: the last of theta
    assert (one.counts.negative_positive, one.counts.positive_negative) == (1, 1)
    assert one.counts.second_negative == 1
    assert one.agree.estimate == pytest.approx(5 / 7)
    assert one.kappa.estimate == pytest.approx((5 / 7 - 25 / 49) / (24 / 49))
    assert one.kappa.low < one.kappa.estimate < one.kappa.high


def test_without_a_second_judge_there_is_nothing_to_compare():
    only = Painted([], [{"light": "negative"}], None)

    assert judges.compare({"base": only}, ["a"]) == {}


def test_judges_who_always_agree_are_as_sure_as_there_are_captions():
    many = {name: painted("+-+-", "+-+-") for name in "abcdefgh"}

    kappa = judges.compare(many, list("wxyz"))["light"].kappa

    assert (kappa.estimate, kappa.high, kappa.count) == (1, 1, 32)
    assert kappa.low == judges.compare({"a": many["a"]}, list("wxyz"))["light"].kappa.low


def test_judges_who_toss_coins_agree_by_chance_in_as_many_reports_as_that_says():
    """Both answer alike within a caption, as judges of like pictures do, but apart."""
    random = np.random.default_rng(0)
    captions = [str(number) for number in range(20)] * 3
    trials, held = 200, 0

    for _ in range(trials):
        mine, theirs = ("".join(random.choice(["+", "-"], 20)) * 3 for _ in range(2))
        kappa = judges.compare({"base": painted(mine, theirs)}, captions)["light"].kappa
        held += kappa.low <= 0 <= kappa.high

    assert held / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)
