import pytest

from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Tree
from atelier.metrics import negatives

A, B, C = "a" * 64, "b" * 64, "c" * 64


def leaf(name):
    return {
        "positive": f"good {name}",
        "negative": f"bad {name}",
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
            "colour": {
                "name": "Colour",
                "about": "",
                "branches": {"harmony": leaf("harmony"), "value": leaf("value")},
            },
            # A prefix of the other root's name: it must not be counted with it.
            "colour-field": {"name": "Field", "about": "", "branches": {"edge": leaf("edge")}},
        },
    }
)


def said(image, criterion, pole, annotator="measured-1"):
    return Judgement(
        image=image, criterion=criterion, pole=pole, annotator=annotator, confidence=1
    )


JUDGEMENTS = [
    said(A, "colour/harmony", "negative"),
    said(A, "colour/value", "negative"),
    said(A, "colour-field/edge", "positive"),
    said(B, "colour/harmony", "positive"),
    said(B, "colour-field/edge", "negative"),
    said(B, "colour-field/edge", "negative", annotator="vlm-1"),
    said(B, "colour/value", "negative", annotator="vlm-1"),
]


def found(images=(A, B, C), judgements=tuple(JUDGEMENTS), annotator="measured-1"):
    return negatives.verdicts(judgements, images, annotator)


def test_attributes_are_counted_image_by_image_and_silence_counts_as_none():
    assert negatives.counts(found(), "negative").tolist() == [2, 1, 0]
    assert negatives.counts(found(), "positive").tolist() == [1, 1, 0]


def test_only_the_named_annotator_is_heard():
    assert negatives.counts(found(annotator="vlm-1"), "negative").tolist() == [0, 2, 0]


def test_the_later_judgement_stands():
    corrected = [*JUDGEMENTS, said(A, "colour/value", "positive")]

    assert negatives.counts(found(judgements=corrected), "negative").tolist() == [1, 1, 0]


def test_the_same_image_painted_twice_counts_twice():
    assert negatives.counts(found(images=(A, A)), "negative").tolist() == [2, 2]


def test_a_root_does_not_count_its_namesake():
    assert negatives.counts(found(), "negative", "colour").tolist() == [2, 0, 0]
    assert negatives.counts(found(), "negative", "colour-field").tolist() == [0, 1, 0]


def test_the_mean_by_hand():
    attributes = negatives.measure(found(), TREE, ["x", "y", "z"])

    assert attributes.negatives.estimate == 1  # (2 + 1 + 0) / 3
    assert attributes.positives.estimate == pytest.approx(2 / 3)
    assert attributes.negatives.count == 3
    assert attributes.negative_shares["colour/harmony"].estimate == pytest.approx(1 / 3)
    assert attributes.positive_shares["colour-field/edge"].estimate == pytest.approx(1 / 3)


def test_roots_and_criteria_add_up_to_the_whole():
    attributes = negatives.measure(found(), TREE, ["x", "y", "z"])

    for whole, roots, shares in (
        (attributes.negatives, attributes.negatives_by_root, attributes.negative_shares),
        (attributes.positives, attributes.positives_by_root, attributes.positive_shares),
    ):
        assert sum(part.estimate for part in roots.values()) == pytest.approx(whole.estimate)
        assert sum(part.estimate for part in shares.values()) == pytest.approx(whole.estimate)
