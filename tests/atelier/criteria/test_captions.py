import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.criteria import captions
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError


def leaf(positive, negative):
    return {
        "positive": positive,
        "negative": negative,
        "positive_means": "",
        "negative_means": "",
        "applies": "any",
        "sources": [],
    }


TREE = Tree.model_validate(
    {
        "domain": "painting",
        "version": "1",
        "literature": {},
        "criteria": {
            "harmony": leaf("harmonious palette", "clashing hues"),
            "edges": leaf("crisp edges", "blurred edges"),
            "balance": leaf("balanced masses", "lopsided masses"),
        },
    }
)
Y = "a landscape in blue"


def words(text):
    return len(text.split())


def test_caption_and_attributes_are_joined_by_commas():
    text = captions.join(Y, captions.labelled(["harmony"], ["edges"], TREE))

    assert text == "a landscape in blue, harmonious palette, blurred edges"


def test_the_winner_has_the_good_poles_and_the_loser_the_bad_ones():
    assert captions.winner(["harmony"], TREE) == ["harmonious palette"]
    assert captions.loser(["edges"], TREE) == ["blurred edges"]


def test_the_flipped_winner_has_every_active_pair_at_its_good_pole():
    phrases = captions.flipped_winner(["harmony"], ["edges"], TREE)

    assert phrases == ["harmonious palette", "crisp edges"]


def test_without_attributes_a_prompt_is_the_caption():
    assert captions.join(Y, captions.labelled([], [], TREE)) == Y
    assert captions.join("", captions.labelled(["edges"], [], TREE)) == "crisp edges"


def test_an_unknown_criterion_is_refused():
    with pytest.raises(AnnotationError, match="'hue' is no criterion"):
        captions.labelled(["hue"], [], TREE)


def test_what_fits_is_left_alone():
    fitted = captions.fit(Y, ["crisp edges"], 6, words, seed=0)

    assert fitted == captions.Fitted("a landscape in blue, crisp edges", (), cut=False)


def test_what_does_not_fit_loses_whole_phrases_and_says_which():
    # 4 words of caption and room for two of three phrases of 2
    phrases = ["crisp edges", "clashing hues", "balanced masses"]
    fitted = captions.fit(Y, phrases, 9, words, seed=0)

    kept = fitted.prompt.split(", ")[1:]
    assert len(kept) == 2
    assert [phrase for phrase in phrases if phrase not in kept] == list(fitted.dropped)
    assert kept == [phrase for phrase in phrases if phrase in kept]


def test_other_seeds_drop_other_phrases_and_the_same_seed_the_same():
    phrases = ["crisp edges", "clashing hues", "balanced masses"]
    dropped = [captions.fit(Y, phrases, 7, words, seed).dropped for seed in range(30)]

    assert set(dropped) == {tuple(p for p in phrases if p != kept) for kept in phrases}
    assert dropped == [captions.fit(Y, phrases, 7, words, seed).dropped for seed in range(30)]


def test_a_caption_too_long_alone_is_cut_between_words():
    fitted = captions.fit(Y, ["crisp edges"], 3, words, seed=0)

    assert fitted == captions.Fitted("a landscape in", ("crisp edges",), cut=True)


def test_a_budget_for_nothing_keeps_nothing():
    assert captions.fit("landscape", [], 0, words, seed=0) == captions.Fitted("", (), cut=True)


@given(
    caption=st.text("ab ", max_size=30),
    phrases=st.lists(st.text("cd", min_size=1, max_size=8), max_size=8, unique=True),
    budget=st.integers(0, 40),
    seed=st.integers(0, 5),
)
def test_the_budget_is_kept_and_nothing_is_lost_unsaid(caption, phrases, budget, seed):
    fitted = captions.fit(caption, phrases, budget, len, seed)

    assert len(fitted.prompt) <= budget
    kept = [phrase for phrase in phrases if phrase not in fitted.dropped]
    if fitted.cut:
        assert kept == []
        assert " ".join(caption.split()).startswith(fitted.prompt)
    else:
        assert fitted.prompt == captions.join(caption, kept)
