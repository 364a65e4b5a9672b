import numpy as np
import pytest

from atelier.annotators.comparing import Compared
from atelier.criteria.tree import Tree
from atelier.metrics import comparison
from atelier.metrics.comparison import Painted, Real

LEAF = {"positive_means": "", "negative_means": "", "applies": "any", "sources": []}
TREE = Tree.model_validate(
    {
        "domain": "toy",
        "version": "1",
        "literature": {},
        "criteria": {
            "edges": {"positive": "calm", "negative": "harsh", **LEAF},
            "light": {"positive": "clear", "negative": "dull", **LEAF},
        },
    }
)


class MeanColour:
    """A real extractor, small: the mean of each channel."""

    name = identity = "mean-colour"

    def features(self, images):
        return np.array([image.mean(axis=(0, 1)) for image in images])


def pictures(count, seed):
    return list(np.random.default_rng(seed).integers(10, 240, (count, 4, 4, 3), dtype=np.uint8))


BAD = {"edges": "negative", "light": "negative"}
HALF = {"edges": "negative", "light": "positive"}
GOOD = {"edges": "positive"}


ALL = ("fid", "kid", "vendi", "memorisation")


def compare(real=None, second=None, extractor=True, metrics=ALL, learned=None, scores=None):
    painted = {
        "base": Painted(pictures(3, 1), [BAD, BAD, HALF], second),
        "theta": Painted(pictures(3, 2), [HALF, GOOD, {}], second),
    }
    seen = MeanColour().features
    shown, clean = real or (pictures(6, 3), [True, False, True, False, True, False])
    measured = {
        name: comparison.measure(
            one.images,
            seen(one.images) if extractor else None,
            Real(seen(shown), clean, learned) if extractor else None,
            metrics=metrics,
            captions=["x", "y", "x"],
            extractor="mean-colour" if extractor else None,
            seed=0,
        )
        for name, one in painted.items()
    }
    return comparison.compare(
        painted,
        measured,
        TREE,
        scores=scores or {},
        captions=["x", "y", "x"],
        reference="base",
    )


def test_every_number_by_hand():
    results = compare()

    assert results["base"].attributes.negatives.estimate == pytest.approx(5 / 3)
    assert results["theta"].attributes.negatives.estimate == pytest.approx(1 / 3)
    # paired: (1 - 2, 0 - 2, 0 - 1) / 3
    assert results["theta"].difference.estimate == pytest.approx(-4 / 3)
    assert results["base"].difference is None
    assert results["theta"].fid.real == 6
    assert results["theta"].fid_clean.real == 3
    assert results["theta"].fid.extractor == "mean-colour"


def test_with_fewer_than_two_clean_paintings_there_is_no_distance_to_them():
    results = compare(real=(pictures(4, 3), [True, False, False, False]))

    assert results["base"].fid is not None
    assert results["base"].fid_clean is None


def test_the_independent_judge_is_counted_apart():
    results = compare(second=[GOOD, GOOD, HALF])

    assert results["base"].second.estimate == pytest.approx(1 / 3)
    assert compare()["base"].second is None


def test_clipped_counts_pixels_that_are_black_or_white_in_all_channels():
    picture = np.full((2, 2, 3), 128, np.uint8)
    picture[0, 0] = 0
    picture[0, 1] = 255
    picture[1, 0] = (0, 0, 255)  # a pure blue is a colour

    assert comparison.clipped([picture, np.full((2, 2, 3), 128, np.uint8)]) == 0.25


def test_preferences_by_hand():
    said = [
        Compared({"light": "second"}, {"light": "second"}),
        Compared(
            {"light": "second", "edges": "neither"}, {"light": "second", "edges": "neither"}
        ),
        Compared({"light": "first"}, {"light": "first"}),
        Compared({"light": "first"}, {"light": "second"}),  # it prefers what it sees first
        None,
    ]

    found = comparison.preferences(said, list("abcde"), ["light", "edges", "unheard"])

    assert list(found) == ["light", "edges"]
    assert found["light"].wins.estimate == pytest.approx(2 / 3)
    assert found["light"].wins.count == 3
    assert (found["light"].ties, found["light"].contradictions) == (0, 1)
    assert found["edges"].wins is None
    assert found["edges"].ties == 1
