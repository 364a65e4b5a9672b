import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from survey.method import preferences

# Fleiss' method on ten items, fourteen judges and five answers: a table that textbooks work.
TEXTBOOK = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_kappa_of_the_textbook_table():
    assert preferences.fleiss_kappa(TEXTBOOK) == pytest.approx(0.210, abs=0.0005)


def test_kappa_by_hand():
    # P = (1 + 1 + 1/3)/3 = 7/9; p = (5/9, 4/9), E = 41/81; (63 - 41)/(81 - 41)
    assert preferences.fleiss_kappa([[3, 0], [0, 3], [2, 1]]) == pytest.approx(22 / 40)


def test_kappa_leaves_out_items_of_one_judge_and_allows_unequal_numbers():
    assert preferences.fleiss_kappa([[3, 0], [0, 3], [2, 1], [1, 0]]) == pytest.approx(22 / 40)
    # P = (1 + 1)/2, whoever came to which item
    assert preferences.fleiss_kappa([[5, 0], [0, 2]]) == 1.0


@pytest.mark.parametrize("table", [[[3, 0], [2, 0]], [[1, 0], [0, 1]], np.zeros((0, 2))])
def test_kappa_is_undefined_where_nothing_can_be_said(table):
    assert preferences.fleiss_kappa(table) is None


def test_independent_answers_have_a_kappa_near_zero():
    random = np.random.default_rng(0)
    table = random.multinomial(5, [0.6, 0.3, 0.1], size=4000)

    assert preferences.fleiss_kappa(table) == pytest.approx(0, abs=0.01)


def test_unlike_items_have_a_chance_each():
    # Two items of each of two kinds, answered as their kind is: agreement, none by chance
    # within a kind. P = 1; pooled E = 1/2, of each kind 1.
    table = [[3, 0], [3, 0], [0, 3], [0, 3]]

    assert preferences.fleiss_kappa(table) == 1.0
    assert preferences.fleiss_kappa(table, ["a", "a", "b", "b"]) is None
    # one dissenter in each kind: P = 2/3, E = (25 + 1)/36 = 13/18, κ = (12 - 13)/(18 - 13)
    table = [[3, 0], [2, 1], [0, 3], [1, 2]]
    assert preferences.fleiss_kappa(table, ["a", "a", "b", "b"]) == pytest.approx(-0.2)


def test_an_interval_of_kappa_holds_the_truth_about_as_often_as_it_says():
    """Four people on 20 captions, who agree by chance alone: the bootstrap holds 0 in 80%."""
    random = np.random.default_rng(0)
    trials, held = 300, 0

    for _ in range(trials):
        table = random.multinomial(4, [0.4, 0.4, 0.2], size=20)
        found = preferences.kappa(table, np.zeros(20), np.arange(20))
        held += found.low <= 0 <= found.high

    assert abs(held / trials - 0.95) < 3 * math.sqrt(0.95 * 0.05 / trials)


def test_people_who_always_agree_are_not_certain_to():
    found = preferences.kappa([[3, 0], [0, 3]] * 5, np.zeros(10), np.arange(10))

    assert (found.estimate, found.high) == (1, 1)
    assert 0 < found.low < 0.5
    assert preferences.kappa([[3, 0], [0, 3]], np.zeros(2), ["a", "a"]).low == -1


def ballots(worth, captions, raters=None, first=0, second=1):
    count = len(worth)
    return preferences.Ballots(
        first=[first] * count,
        second=[second] * count,
        worth=worth,
        captions=captions,
        raters=["a"] * count if raters is None else raters,
    )


def test_two_painters_have_the_log_odds_with_half_a_win_added():
    scores = preferences.bradley_terry([[0, 30], [10, 0]])

    half = math.log(30.5 / 10.5) / 2
    assert scores == pytest.approx([half, -half])


def test_a_score_is_never_surer_than_that_of_independent_answers():
    # Each of ten captions has three answers for the first and one against.
    votes = ballots([1.0, 1.0, 1.0, 0.0] * 10, [str(n // 4) for n in range(40)])

    score = preferences.scores(votes, 2)[0]

    error = math.sqrt(1 / 30.5 + 1 / 10.5) / 2
    quantile = scipy.stats.t.ppf(0.975, 9)
    assert score.estimate == pytest.approx(math.log(30.5 / 10.5) / 2)
    assert score.high - score.estimate == pytest.approx(quantile * error, rel=1e-6)
    assert score.count == 40


def test_a_score_of_captions_that_differ_is_less_sure():
    # The same answers, all of a caption alike: each caption is one answer.
    votes = ballots([1.0] * 30 + [0.0] * 10, [str(n // 4) for n in range(40)])

    score = preferences.scores(votes, 2)[0]

    independent = math.sqrt(1 / 30.5 + 1 / 10.5) / 2
    assert score.high - score.estimate > 1.8 * 2.26 * independent


def test_one_who_always_wins_has_a_finite_score():
    best = preferences.bradley_terry([[0, 50, 50], [0, 0, 25], [0, 25, 0]])[0]

    assert 2 < best < 4


def test_the_scores_maximise_the_likelihood():
    wins = np.array([[0, 8, 3, 9], [4, 0, 7, 1], [6, 5, 0, 2], [2, 3, 8, 0]], dtype=float)
    added = wins + 0.5 * (1 - np.eye(4))

    def cost(free):
        scores = np.append(free, -free.sum())
        return -(added * -np.logaddexp(0, scores[None, :] - scores[:, None])).sum()

    best = scipy.optimize.minimize(cost, np.zeros(3), tol=1e-12).x

    ours = preferences.bradley_terry(wins)
    assert ours[:3] == pytest.approx(best, abs=1e-5)
    assert sum(ours) == pytest.approx(0, abs=1e-12)


def test_the_interval_holds_the_true_score_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    truth = np.array([0.8, 0.0, -0.8])
    first, second = np.repeat([[0, 0, 1], [1, 2, 2]], 60, axis=1)
    chance = 1 / (1 + np.exp(truth[second] - truth[first]))
    trials, held = 300, 0

    for _ in range(trials):
        votes = preferences.Ballots(
            first, second, (random.random(180) < chance).astype(float),
            captions=np.tile(np.arange(60), 3), raters=np.zeros(180),
        )  # fmt: skip
        score = preferences.scores(votes, 3)[0]
        held += score.low <= truth[0] <= score.high

    # never narrower than if votes were independent, as these are: a little too wide
    assert 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials) < held / trials < 0.995


def test_painters_that_never_met_share_no_scale():
    with pytest.raises(ValueError, match="never compared"):
        preferences.bradley_terry([[0, 3, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1], [0, 0, 4, 0]])
    with pytest.raises(ValueError, match="square"):
        preferences.bradley_terry([[0, 1]])


def test_the_sign_test_is_the_binomial_of_scipy_without_the_ties():
    found = preferences.sign_test([0.5, 0.1, 0.2, -0.3, 0.0, 0.5, 0.5, 0.4, 0.5])

    assert (found.plus, found.minus) == (7, 1)
    assert found.p == scipy.stats.binomtest(7, 8).pvalue == pytest.approx(18 / 256)


def test_the_sign_test_of_nothing_but_ties_finds_nothing():
    assert preferences.sign_test([0, 0]).p == 1.0
