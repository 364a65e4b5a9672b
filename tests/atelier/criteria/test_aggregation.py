import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.config.annotation import Majority, Trust, Unanimous, Weighted
from atelier.criteria import aggregation
from atelier.criteria.annotations import Judgement
from atelier.errors import ParamsError

RULES = [
    Unanimous(rule="unanimous"),
    Majority(rule="majority", quorum=1),
    Weighted(rule="weighted"),
    Trust(rule="trust", order=["ann", "*"]),
]


def say(annotator, pole, confidence=1.0, criterion="edges", image="a"):
    return Judgement(
        image=image * 64,
        criterion=criterion,
        pole={"+": "positive", "-": "negative"}[pole],
        annotator=annotator,
        confidence=confidence,
    )


def test_unanimity_is_broken_by_one():
    agreed = [say("ann", "+", 0.5), say("bob", "+", 1.0)]

    won = aggregation.unanimous(agreed)

    assert (won.pole, won.annotator, won.confidence) == ("positive", "ann + bob", 0.75)
    assert aggregation.unanimous([*agreed, say("cem", "-")]) is None


def test_a_majority_needs_its_quorum_and_more_than_half():
    said = [say("ann", "+", 0.6), say("bob", "-", 0.9), say("cem", "+", 0.9)]

    won = aggregation.majority(said, quorum=3)

    # two of three votes, sure by (0.6 + 0.9) / 2 = 0.75
    assert (won.pole, won.annotator) == ("positive", "ann + cem")
    assert won.confidence == pytest.approx(2 / 3 * 0.75)
    assert aggregation.majority(said, quorum=4) is None
    assert aggregation.majority(said[:2], quorum=2) is None


def test_one_who_is_sure_outweighs_two_who_are_not():
    said = [say("ann", "+", 0.3), say("bob", "-", 0.9), say("cem", "+", 0.3)]

    won = aggregation.weighted(said)

    # 0.9 of 1.5 of the weight, times a confidence of 0.9
    assert (won.pole, won.annotator) == ("negative", "bob")
    assert won.confidence == pytest.approx(0.6 * 0.9)
    assert aggregation.weighted([say("ann", "+", 0.5), say("bob", "-", 0.5)]) is None
    assert aggregation.weighted([say("ann", "+", 0.0), say("bob", "-", 0.0)]) is None


def test_the_first_of_those_trusted_who_speaks_is_heard():
    said = [say("vlm-1 m", "+"), say("human ann", "-"), say("human bob", "-")]
    order = ["curator", "human *", "vlm-*"]

    assert aggregation.trusted(said, order).annotator == "human ann + human bob"
    assert aggregation.trusted(said[:1], order) == said[0]
    assert aggregation.trusted([*said[1:], say("human cem", "+")], order) is None
    assert aggregation.trusted([say("stranger", "+")], order) is None


def test_what_one_says_alone_is_left_as_it_is():
    alone = say("ann", "-", 0.4)

    for rule in RULES:
        assert aggregation.settle([alone], rule).judgements == [alone]


def test_each_question_has_one_outcome():
    said = [
        say("ann", "+", criterion="alone"),
        *(say(name, "+", criterion="agreed") for name in ("ann", "bob", "cem")),
        *(say(name, pole, criterion="split") for name, pole in zip("abc", "++-", strict=True)),
        *(say(name, pole, criterion="tied") for name, pole in zip("ab", "+-", strict=True)),
    ]

    def outcomes(rule):
        settled = aggregation.settle(said, rule)
        assert sum(settled.outcomes.values()) == 4
        return {name: count for name, count in settled.outcomes.items() if count}

    assert outcomes(RULES[0]) == {"alone": 1, "agreed": 1, "undecided": 2}
    assert outcomes(RULES[1]) == {"alone": 1, "agreed": 1, "decided": 1, "undecided": 1}
    assert outcomes(Majority(rule="majority", quorum=2)) == {
        "too_few": 1, "agreed": 1, "decided": 1, "undecided": 1,
    }  # fmt: skip
    assert outcomes(Trust(rule="trust", order=["ann"])) == {
        "alone": 1, "agreed": 1, "unanswered": 2,
    }  # fmt: skip


def test_who_changed_their_mind_is_heard_once():
    settled = aggregation.settle([say("ann", "+"), say("ann", "-")], RULES[0])

    assert [one.pole for one in settled.judgements] == ["negative"]
    assert settled.outcomes["alone"] == 1


@given(
    poles=st.lists(st.sampled_from("+-"), min_size=1, max_size=6),
    sure=st.lists(st.floats(0, 1), min_size=6, max_size=6),
    rule=st.sampled_from(RULES),
)
def test_confidence_stays_between_none_and_the_surest_and_the_poles_have_no_favourite(
    poles, sure, rule
):
    said = [say(name, pole, c) for name, pole, c in zip("abcdef", poles, sure, strict=False)]
    other = {"+": "-", "-": "+"}
    mirrored = [
        say(name, other[pole], c) for name, pole, c in zip("abcdef", poles, sure, strict=False)
    ]

    won, turned = (aggregation.settle(one, rule).judgements for one in (said, mirrored))

    assert [one.confidence for one in won] == [one.confidence for one in turned]
    for one, twin in itertools.zip_longest(won, turned):
        assert one.pole != twin.pole
        assert 0 <= one.confidence <= max(sure) + 1e-12


def test_a_trusted_name_that_is_misspelt_is_named():
    rule = Trust(rule="trust", order=["human *", "wlm-*"])

    with pytest.raises(ParamsError, match=r"trusts 'wlm-\*', .*'human ann', 'vlm-1 m'"):
        aggregation.refuse_idle(rule, {"vlm-1 m", "human ann"})
    aggregation.refuse_idle(rule, {"wlm-1", "human ann"})
