from pathlib import Path

import numpy as np
import pytest

from atelier import annotators
from atelier.annotators import measured
from atelier.criteria.tree import parse
from atelier.starter import drawings

STARTER = Path(__file__).parents[3] / "params" / "criteria" / "starter.yaml"


@pytest.fixture(scope="module")
def annotator():
    return annotators.load("measured", parse(STARTER))


def test_measured_judgements_carry_the_image_and_who_judged(annotator):
    (drawing,) = drawings.paintings(1, seed=0)

    judgements = annotator.judge("a" * 64, drawing.pixels)

    said = measured.judge(drawing.pixels, annotator.tree)
    assert [(one.criterion, one.pole, one.confidence) for one in judgements] == list(said)
    assert {(one.image, one.annotator) for one in judgements} == {("a" * 64, measured.NAME)}


def test_judging_twice_says_the_same(annotator):
    (drawing,) = drawings.paintings(1, seed=1)

    assert annotator.judge("a" * 64, drawing.pixels) == annotator.judge(
        "a" * 64, np.array(drawing.pixels)
    )


def test_a_measured_annotator_is_known_by_its_name_and_its_source(annotator):
    name, source = annotator.identity.split()

    assert name == measured.NAME
    assert len(source) == 64
