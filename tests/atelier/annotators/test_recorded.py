import numpy as np
import pytest

from atelier.annotators.recorded import Recorded
from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError, ArtifactError

PIXELS = np.zeros((4, 4, 3), np.uint8)


def leaf(positive, negative, *aliases):
    return {
        "positive": positive,
        "negative": negative,
        "positive_means": "",
        "negative_means": "",
        "applies": "any",
        "sources": [],
        "aliases": list(aliases),
    }


TREE = Tree.model_validate(
    {
        "domain": "painting",
        "version": "1",
        "literature": {},
        "criteria": {
            "harmony": leaf("harmonious palette", "clashing hues", "palette"),
            "edges": leaf("crisp edges", "blurred edges"),
        },
    }
)


def judgement(image, criterion, pole, annotator="expert", confidence=1.0):
    return Judgement(
        image=image * 64,
        criterion=criterion,
        pole=pole,
        annotator=annotator,
        confidence=confidence,
    )


def recorded(tmp_path, *rows):
    path = tmp_path / "recorded.jsonl"
    path.write_text(annotations.lines(rows))
    return path


def test_each_image_gets_what_was_said_of_it_in_the_order_of_the_tree(tmp_path):
    edges, harmony = judgement("a", "edges", "negative"), judgement("a", "harmony", "positive")
    other = judgement("b", "edges", "positive", confidence=0.5)
    annotator = Recorded.read(recorded(tmp_path, edges, other, harmony), TREE)

    assert annotator.judge("a" * 64, PIXELS) == [harmony, edges]
    assert annotator.judge("b" * 64, PIXELS) == [other]
    assert annotator.judge("c" * 64, PIXELS) == []


def test_the_last_word_of_an_annotator_counts_and_two_annotators_both_do(tmp_path):
    first, last = judgement("a", "edges", "negative"), judgement("a", "edges", "positive")
    other = judgement("a", "edges", "negative", annotator="painter")
    annotator = Recorded.read(recorded(tmp_path, first, other, last), TREE)

    assert annotator.judge("a" * 64, PIXELS) == [last, other]


def test_a_former_path_is_taken_for_the_present_one(tmp_path):
    annotator = Recorded.read(recorded(tmp_path, judgement("a", "palette", "positive")), TREE)

    assert annotator.judge("a" * 64, PIXELS) == [judgement("a", "harmony", "positive")]


def test_unknown_criteria_are_all_named_with_their_first_line(tmp_path):
    path = recorded(
        tmp_path,
        judgement("a", "edges", "positive"),
        judgement("a", "edge", "positive"),
        judgement("b", "edge", "positive"),
        judgement("b", "hue", "positive"),
    )

    with pytest.raises(AnnotationError) as caught:
        Recorded.read(path, TREE)

    assert "  'edge', first in line 2\n  'hue', first in line 4\n" in str(caught.value)
    assert "`aliases`" in str(caught.value)


def test_another_recording_or_another_alias_is_another_annotator(tmp_path):
    rows = [judgement("a", "edges", "positive")]
    renamed = Tree.model_validate(
        TREE.model_dump() | {"criteria": {"edges": leaf("crisp edges", "blurred edges")}}
    )
    one = Recorded.read(recorded(tmp_path, *rows), TREE)
    again = Recorded.read(recorded(tmp_path, *rows), TREE)
    other_tree = Recorded.read(recorded(tmp_path, *rows), renamed)
    other_file = Recorded.read(recorded(tmp_path, *rows, *rows), TREE)

    assert one.identity == again.identity
    assert len({one.identity, other_tree.identity, other_file.identity}) == 3


def test_an_absent_recording_names_the_param(tmp_path):
    with pytest.raises(ArtifactError, match=r"absent.jsonl is absent; annotate.recorded names"):
        Recorded.read(tmp_path / "absent.jsonl", TREE)


def test_a_recording_knows_who_speaks_in_it(tmp_path):
    rows = [judgement("a", "edges", "positive")]

    assert Recorded.read(recorded(tmp_path, *rows), TREE).names == {rows[0].annotator}
