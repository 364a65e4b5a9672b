import pytest

from atelier.criteria import wording
from atelier.criteria.tree import Tree


def tree(**pairs):
    return Tree.model_validate(
        {
            "domain": "painting",
            "version": "1",
            "literature": {"dow": "Dow, Composition, 1899"},
            "criteria": {
                key: {
                    "positive": positive,
                    "negative": negative,
                    "positive_means": "It is so.",
                    "negative_means": "It is otherwise.",
                    "applies": "any",
                    "sources": ["dow"],
                }
                for key, (positive, negative) in pairs.items()
            },
        }
    )


def test_plain_distinct_phrases_meet_no_objection():
    fine = tree(
        balance=("masses in quiet balance", "composition toppling to one side"),
        shadows=("shadows full of colour", "dead black shadows"),
    )

    assert list(wording.objections(fine)) == []


@pytest.mark.parametrize(
    ("phrase", "objection"),
    [
        ("shadows, full of colour", "has a comma, by which prompts are joined"),
        ("shadows without colour", "negates; name what is seen instead"),
        ("no depth", "negates"),
        ("one two three four five six seven", "has 7 words, a prompt has room for 6"),
    ],
)
def test_a_phrase_has_to_stand_in_a_prompt(phrase, objection):
    (said,) = wording.objections(tree(shadows=("living shadows", phrase)))

    assert said.startswith("shadows: ")
    assert objection in said


def test_words_that_only_contain_a_negation_are_let_pass():
    assert not list(wording.objections(tree(a=("notable knots", "noble nonpareil"))))


def test_phrases_that_share_half_their_words_are_nearly_one():
    # {far, things, sharp} of {far, things, sharp, as, near, clear}: 3 / 6
    near = tree(
        fade=("soft distance", "far things sharp"),
        edge=("firm edges", "far things sharp as near clear"),
        other=("warm light", "chalky paint"),
    )

    assert list(wording.alike(near)) == [
        (("fade", "far things sharp"), ("edge", "far things sharp as near clear"))
    ]


def test_phrases_that_share_three_quarters_of_their_letters_are_nearly_one():
    # 6 letters of each 8 in order: 2 * 6 / 16 = 0.75
    assert list(wording.alike(tree(a=("abcdefxx", "kl"), b=("abcdefyy", "mn"))))
    assert not list(wording.alike(tree(a=("abcdexxx", "kl"), b=("abcdeyyy", "mn"))))


def test_the_two_poles_of_a_pair_may_be_alike():
    assert not list(wording.alike(tree(sharp=("edges all sharp", "edges all blurred"))))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("One side is heavy; nothing answers it.", True),
        ("One side is heavy. Nothing answers it.", False),
        ("One side is heavy", False),
        ("one side is heavy.", False),
        ("", False),
    ],
)
def test_a_definition_is_one_sentence(text, fits):
    assert wording.is_sentence(text) is fits


def test_a_book_on_which_nothing_rests_is_named():
    values = tree(a=("warm light", "cold light")).model_dump()
    values["literature"]["itten"] = "Itten, The Art of Color, 1961"

    assert list(wording.objections(Tree.model_validate(values))) == [
        "literature: nothing rests on 'itten'"
    ]
