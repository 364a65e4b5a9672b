import pytest

from atelier import images
from atelier.annotators.inspection import Limits
from atelier.annotators.protocol import Answers, Picture
from atelier.annotators.recorded import Recorded, WithRecorded
from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError, ArtifactError
from atelier.reporting import silent

LIMITS = Limits(smallest_side_pixels=16, largest_pixels=10**6, pixels=None)


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


def recorded(tmp_path, *rows, name="recorded"):
    path = tmp_path / f"{name}.jsonl"
    path.write_text(annotations.lines(rows))
    return path


def read(*files, tree=TREE):
    return Recorded.read(files, tree, LIMITS)


def test_each_image_gets_what_was_said_of_it_in_the_order_of_the_tree(tmp_path):
    edges, harmony = judgement("a", "edges", "negative"), judgement("a", "harmony", "positive")
    other = judgement("b", "edges", "positive", confidence=0.5)

    annotator = read(recorded(tmp_path, edges, other, harmony))

    assert annotator.said == {"a" * 64: [harmony, edges], "b" * 64: [other]}


def test_the_last_word_of_an_annotator_counts_and_two_annotators_both_do(tmp_path):
    first, last = judgement("a", "edges", "negative"), judgement("a", "edges", "positive")
    other = judgement("a", "edges", "negative", annotator="painter")

    annotator = read(recorded(tmp_path, first, other, last))

    assert annotator.said["a" * 64] == [last, other]


def test_a_former_path_is_taken_for_the_present_one(tmp_path):
    annotator = read(recorded(tmp_path, judgement("a", "palette", "positive")))

    assert annotator.said["a" * 64] == [judgement("a", "harmony", "positive")]


def test_unknown_criteria_are_all_named_with_their_first_line(tmp_path):
    path = recorded(
        tmp_path,
        judgement("a", "edges", "positive"),
        judgement("a", "edge", "positive"),
        judgement("b", "edge", "positive"),
        judgement("b", "hue", "positive"),
    )

    with pytest.raises(AnnotationError) as caught:
        read(path)

    assert "  'edge', first in line 2\n  'hue', first in line 4\n" in str(caught.value)
    assert "`aliases`" in str(caught.value)


def test_an_absent_recording_names_the_param(tmp_path):
    with pytest.raises(ArtifactError, match=r"absent.jsonl is absent; annotate.recorded names"):
        read(tmp_path / "absent.jsonl")


def test_a_recording_knows_who_speaks_in_it(tmp_path):
    rows = [judgement("a", "edges", "positive")]

    assert read(recorded(tmp_path, *rows)).names == {"expert"}


def test_each_picture_has_an_answer_and_one_that_cannot_be_judged_says_why(tmp_path, paint):
    files = [paint(tmp_path / name, seed) for seed, name in enumerate(("a.png", "b.png"))]
    files.append(paint(tmp_path / "tiny.png", 2, size=(40, 15)))
    files.append(tmp_path / "absent.png")
    said = judgement("a", "edges", "positive").model_copy(
        update={"image": images.sha256(files[0])}
    )
    annotator = read(recorded(tmp_path, said))

    answers = annotator.judge_many([Picture(file) for file in files], silent).each

    assert [one.judgements for one in answers] == [[said], [], [], []]
    assert [one.image for one in answers] == [*map(images.sha256, files[:3]), None]
    reasons = [one.unanswered for one in answers]
    assert reasons[:2] == [None, None]
    assert "annotate.smallest_side_pixels, 16" in reasons[2]
    assert reasons[3] == "cannot be opened: No such file or directory"


def test_recorded_judgements_come_first_beside_another_annotators(tmp_path, paint):
    file = paint(tmp_path / "a.png")
    of_file = {"image": images.sha256(file)}
    said = judgement("a", "edges", "positive").model_copy(update=of_file)
    own = judgement("a", "edges", "negative", annotator="other").model_copy(update=of_file)
    other = read(recorded(tmp_path, own))
    both = WithRecorded(other, read(recorded(tmp_path, said, name="another")))

    answers = both.judge_many([Picture(file)], silent)

    assert isinstance(answers, Answers)
    assert answers.each[0].judgements == [said, own]
    assert both.inspector.fingerprint() == other.inspector.fingerprint()
