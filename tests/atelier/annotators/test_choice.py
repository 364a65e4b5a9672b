from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atelier.annotators import choice, measured
from atelier.annotators.inspection import Limits
from atelier.annotators.protocol import Picture
from atelier.config.annotation import AnnotateParams
from atelier.criteria.tree import parse
from atelier.errors import ParamsError
from atelier.reporting import silent

STARTER = Path(__file__).parents[3] / "params" / "criteria" / "starter.yaml"
LIMITS = Limits(smallest_side_pixels=16, largest_pixels=10**6, pixels=None)


@pytest.fixture(scope="module")
def tree():
    return parse(STARTER)


@pytest.fixture
def choose(profile, tree, vlm, tmp_path):
    """A function that chooses an annotator by changes to ``annotate:``."""

    def choose(recordings=(), **changes):
        params = AnnotateParams.model_validate(profile["annotate"] | {"vlm": vlm} | changes)
        return choice.of_dataset(
            params, tree, LIMITS, responses=tmp_path / "answers", recordings=recordings
        )

    return choose


@pytest.fixture
def labels(tmp_path):
    """A recording of no judgement."""
    path = tmp_path / "labels.jsonl"
    path.touch()
    return path


def test_each_annotator_answers_for_each_picture_in_order(choose, labels, paint, tmp_path):
    sound = [paint(tmp_path / f"{seed}.png", seed, size=(64, 64)) for seed in range(2)]
    tiny = paint(tmp_path / "tiny.png", 3, size=(9, 9))
    files = [sound[0], tiny, sound[1], sound[0], tmp_path / "absent.png"]
    chosen = [
        choose(annotator="measured"),
        choose(annotator="vlm"),
        choose(annotator="recorded", recorded=[str(labels)], recordings=[labels]),
        choose(annotator="vlm", recordings=[labels]),
    ]

    for one in chosen:
        done = []

        def report(count, values, done=done):
            done.append(count)

        answers = one.judge_many([Picture(file) for file in files], report)

        unanswered = [bool(answer.unanswered) for answer in answers.each]
        assert unanswered == [False, True, False, False, True], one.name
        assert answers.each[0] == answers.each[3]
        signed = {said.annotator for answer in answers.each for said in answer.judgements}
        assert signed <= {one.name}
        assert done[-1] == len(files)


def test_the_names_are_the_measures_the_model_and_the_files(choose, labels):
    assert choose(annotator="measured").name == "measured-1"
    assert choose(annotator="vlm").name == "vlm-1 toy-vl"
    assert choose(annotator="recorded", recorded=["x"], recordings=[labels]).name == "recorded"
    assert choose(annotator="measured", recordings=[labels]).name == "measured-1"


def test_measured_judgements_are_those_of_the_pixels(choose, paint, tmp_path, tree):
    file = paint(tmp_path / "a.png", size=(64, 64))
    annotator = choose(annotator="measured")

    (answer,) = annotator.judge_many([Picture(file)], silent).each

    said = measured.judge(np.array(Image.open(file)), tree)
    assert said
    assert [(one.criterion, one.pole, one.confidence) for one in answer.judgements] == said


def test_a_journal_belongs_to_what_was_measured_and_to_the_limits(choose, tree):
    annotator = choose(annotator="measured")
    others = [
        replace(annotator, limits=replace(LIMITS, pixels=32)),
        replace(annotator, tree=tree.model_copy(update={"version": "2"})),
        choose(annotator="vlm"),
    ]

    prints = {one.inspector.fingerprint() for one in [annotator, *others]}

    assert len(prints) == 4
    assert choose(annotator="measured").inspector.fingerprint() in prints


def test_only_recorded_judgements_cannot_judge_new_pictures(tree, tmp_path):
    with pytest.raises(ParamsError, match="evaluate needs one that sees pixels"):
        choice.of_new_pictures("recorded", None, tree, LIMITS, responses=tmp_path)
