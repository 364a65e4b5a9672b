import math

import numpy as np
import pytest

from atelier.metrics import statistics
from survey.method import analysis, design
from survey.method.analysis import EVERYBODY, OVERALL, Answer
from survey.method.design import Picture, Plan, Question

OLD, NEW = "base", "cpo-s"
SETTINGS = {"checks_passed": 0.6, "resamples": 200, "seed": 0}
PLAN = Plan(
    painters=[OLD, NEW],
    prompts=50,
    dimensions=["light", "space"],
    pairs=40,
    raters=4,
    pairs_each=10,
    checks=3,
    repeats=2,
    seed=0,
)


def pair(prompt, dimension="light"):
    return Question(Picture(OLD, prompt), Picture(NEW, prompt), dimension)


def said(rater, number, question, choice, group="experts"):
    return Answer(rater, group, number, question, choice)


def analyse(answers, dimensions=("light",), groups=("experts",)):
    return analysis.analyse(answers, [NEW, OLD], dimensions, groups, **SETTINGS)


def people(plan, preference, random, group="experts", place=0, same=0.0, attentive=True):
    """Answers of people who prefer NEW's picture of a prompt with ``preference(prompt)``."""
    answers = []
    for rater, sheet in enumerate(design.sheets(plan, place)):
        for number, question in enumerate(sheet):
            if question.check and attentive:
                choice = "right" if question.left.ruined else "left"
            elif random.random() < same:
                choice = "same"
            else:
                wants = NEW if random.random() < preference(question.left.prompt) else OLD
                choice = "left" if question.left.painter == wants else "right"
            answers.append(said(f"{group} {rater}", number, question, choice, group))
    return answers


def test_votes_by_hand():
    answers = [
        said("a", 0, pair(0), "right"),  # for NEW
        said("a", 1, pair(1), "left"),
        said("a", 2, pair(2), "same"),
        said("b", 0, pair(0).swapped, "left"),  # for NEW
        said("b", 1, pair(1).swapped, "left"),  # for NEW
        said("b", 2, pair(2).swapped, "left"),  # for NEW
    ]

    found = analyse(answers).finding("light", "experts")

    (one,) = found.comparisons
    assert (one.first, one.wins, one.losses, one.ties) == (NEW, 4, 1, 1)
    assert one.rate == statistics.share(4, 5)
    assert one.share.estimate == pytest.approx((1 + 0.5 + 0.75) / 3)
    assert (one.sign.plus, one.sign.minus) == (2, 0)
    assert found.scores[NEW].estimate == pytest.approx(math.log(5 / 2) / 2)
    assert (found.raters, found.votes) == (2, 6)
    # P = (1 + 0 + 0)/3; answers 4, 1, 1 of 6: E = 18/36
    assert found.kappa == pytest.approx((1 / 3 - 1 / 2) / (1 / 2))


def test_who_fails_the_checks_is_left_out_and_named():
    ruined = Question(Picture(OLD, 9, ruined=True), Picture(OLD, 9), "light")
    answers = [
        said("good", 0, pair(0), "right"),
        said("good", 1, ruined, "right"),
        said("good", 2, ruined, "right"),
        said("good", 3, ruined, "same"),
        said("bad", 0, pair(0), "left"),
        said("bad", 1, ruined, "left"),
        said("bad", 2, ruined, "same"),
        said("bad", 3, ruined, "right"),
        said("new", 0, pair(0), "right"),
    ]

    study = analyse(answers)

    assert [(one.rater, one.passed, one.checks, one.counted) for one in study.trust] == [
        ("bad", 1, 3, False),
        ("good", 2, 3, True),
        ("new", 0, 0, True),
    ]
    assert study.finding("light", "experts").comparisons[0].wins == 2
    assert study.finding("light", "experts").comparisons[0].losses == 0


def test_a_repeated_question_counts_once_and_tells_of_consistency():
    answers = [
        said("a", 0, pair(0), "right"),
        said("a", 1, pair(1), "right"),
        said("a", 2, pair(0).swapped, "left"),  # NEW again
        said("a", 3, pair(1).swapped, "right"),  # OLD this time
    ]

    study = analyse(answers)

    assert (study.trust[0].repeats, study.trust[0].consistent) == (2, 1)
    one = study.finding("light", "experts").comparisons[0]
    assert (one.wins, one.losses) == (2, 0)


def test_groups_and_dimensions_are_told_apart_and_together():
    answers = [
        said("a", 0, pair(0), "right"),
        said("a", 1, pair(0, "space"), "left"),
        said("b", 0, pair(0), "left", "laypeople"),
    ]

    study = analyse(answers, ("light", "space"), ("experts", "laypeople"))

    counts = {(f.dimension, f.group): f.votes for f in study.findings}
    assert counts == {
        ("light", "experts"): 1,
        ("space", "experts"): 1,
        (OVERALL, "experts"): 2,
        ("light", "laypeople"): 1,
        (OVERALL, "laypeople"): 1,
        ("light", EVERYBODY): 2,
        ("space", EVERYBODY): 1,
        (OVERALL, EVERYBODY): 3,
    }


def test_a_known_preference_is_inside_the_interval_about_as_often_as_that_says():
    """Each vote is for NEW with probability 0.7, whatever the picture."""
    random = np.random.default_rng(0)
    wilson = bootstrap = scores = 0
    truth = math.log(0.7 / 0.3) / 2

    for _ in range(40):
        found = analyse(people(PLAN, lambda _: 0.7, random), PLAN.dimensions)
        one = found.finding("light", "experts")
        rate, share = one.comparisons[0].rate, one.comparisons[0].share
        wilson += rate.low <= 0.7 <= rate.high
        bootstrap += share.low <= 0.7 <= share.high
        scores += one.scores[NEW].low <= truth <= one.scores[NEW].high

    assert min(wilson, bootstrap, scores) >= 35  # 38 of 40 expected


def test_a_preference_that_depends_on_the_picture_needs_the_interval_over_pairs():
    """Half of the pairs are won by NEW with 0.9, half with 0.1: other prompts, other rates."""
    random = np.random.default_rng(0)
    better = set(range(25))
    answers = people(PLAN, lambda prompt: 0.9 if prompt in better else 0.1, random)

    found = analyse(answers, PLAN.dimensions).finding("light", "experts")

    one = found.comparisons[0]
    assert one.share.high - one.share.low > 1.2 * (one.rate.high - one.rate.low)
    assert found.kappa > 0.4  # 0.64 on average: people agree on the pair, not on the painter
    assert found.kappa_low < found.kappa < found.kappa_high


def test_people_without_a_preference_are_not_given_one():
    random = np.random.default_rng(3)

    found = analyse(people(PLAN, lambda _: 0.5, random, same=0.2), PLAN.dimensions)

    one = found.finding(OVERALL, "experts")
    assert one.comparisons[0].rate.low < 0.5 < one.comparisons[0].rate.high
    assert one.comparisons[0].sign.p > 0.05
    assert one.comparisons[0].ties > 0
    assert abs(one.kappa) < 0.1


def test_people_who_answer_at_random_are_mostly_found_out():
    random = np.random.default_rng(4)

    study = analyse(people(PLAN, lambda _: 0.5, random, attentive=False), PLAN.dimensions)

    # two or three of three coins: half of them get through three checks
    assert 2 <= sum(not one.counted for one in study.trust) <= 14
    assert len(study.trust) == 16


def test_no_votes_no_findings():
    study = analyse([])

    assert (study.trust, study.findings) == ([], [])
