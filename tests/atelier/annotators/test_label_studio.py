import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from atelier.annotators import human, label_studio
from atelier.criteria.annotations import Image
from atelier.criteria.tree import parse
from atelier.errors import AnnotationError

PAINTING = Path(__file__).parents[3] / "params/criteria/painting.yaml"
CRITERIA = """
domain: toy
version: "1"
literature: {}
criteria:
  light:
    name: Light & shade
    about: How it falls.
    branches:
      clear: {positive: clear light, negative: dull light, positive_means: 'Say "ah".',
              negative_means: "", applies: any, sources: [], aliases: [light/bright]}
  edges: {positive: crisp edges, negative: soft <edges>, positive_means: "",
          negative_means: "", applies: any, sources: []}
"""
IMAGES = [
    Image(image=name * 64, file=f"{name}.png", width=9, height=9, caption="", artwork=name)
    for name in "ab"
]


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "toy.yaml").write_text(CRITERIA)
    return parse(tmp_path / "toy.yaml")


@pytest.fixture
def read(tmp_path, tree):
    """A function that reads tasks, or a text."""

    def read(tasks):
        path = tmp_path / "export.json"
        path.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
        return label_studio.read(path, tree, human.known(IMAGES))

    return read


def short(labels):
    return [(one.image[0], one.criterion, one.pole, one.annotator) for one in labels.judgements]


def said(name, *choices, **changes):
    return {
        "type": "choices", "from_name": name, "to_name": "picture",
        "value": {"choices": list(choices)}, "id": "x", "origin": "manual",
    } | changes  # fmt: skip


def annotation(*results, by=7, **changes):
    return {
        "id": 5,
        "completed_by": by,
        "was_cancelled": False,
        "result": list(results),
    } | changes


def task(*annotations, number=1, **changes):
    (made,) = json.loads(label_studio.tasks(IMAGES[:1], "/data/local-files/?d="))
    return made | {"id": number, "annotations": list(annotations)} | changes


EDGES = said("edges", "positive")


def test_the_interface_offers_both_poles_of_every_criterion(tree):
    view = ElementTree.fromstring(label_studio.interface(tree))

    offered = {
        choices.get("name"): [
            (one.get("alias"), one.get("value")) for one in choices.iter("Choice")
        ]
        for choices in view.iter("Choices")
    }
    assert offered == {
        "light.clear": [("positive", "clear light"), ("negative", "dull light")],
        "edges": [("positive", "crisp edges"), ("negative", "soft <edges>")],
    }
    assert [one.get("value") for one in view.iter("Header")] == ["Light & shade"]


def test_a_tree_of_the_size_of_painting_has_unique_names():
    painting = parse(PAINTING)
    view = ElementTree.fromstring(label_studio.interface(painting))

    names = [one.get("name") for one in view.iter("Choices")]
    assert len(set(names)) == len(names) == len(painting.leaves())


def test_answers_are_signed_by_e_mail_or_by_number(read):
    people = [
        7,
        {"id": 8, "email": "ann@studio"},
        {"id": 9, "email": ""},
        {"id": 3},
        " bob  b ",
    ]
    annotations = [annotation(EDGES, by=by) for by in people]
    annotations[0]["result"].append(said("light.clear", "dull light"))

    labels = read([task(*annotations)])

    assert short(labels) == [
        ("a", "edges", "positive", "human 7"),
        ("a", "light/clear", "negative", "human 7"),
        ("a", "edges", "positive", "human ann@studio"),
        ("a", "edges", "positive", "human 9"),
        ("a", "edges", "positive", "human 3"),
        ("a", "edges", "positive", "human bob b"),
    ]
    assert labels.passed_over == []


@pytest.mark.parametrize("nobody", [None, "", " ", {}, {"email": None}, True, [], 1.5])
def test_an_answer_of_nobody_is_refused(read, nobody):
    with pytest.raises(
        AnnotationError, match=r"task 1: completed_by of annotation 5 is .*was the"
    ):
        read([task(annotation(EDGES, by=nobody))])


def test_who_answered_nothing_need_not_be_known(read):
    labels = read([task(annotation(by=None), annotation(EDGES))])

    assert short(labels) == [("a", "edges", "positive", "human 7")]


def test_what_is_no_judgement_is_counted(read):
    tasks = [
        task(annotation(EDGES, said("light.clear")), drafts=[{}, {}], predictions=[{}]),
        task(annotation(EDGES, was_cancelled=True), number=2),
        task(number=3),
        task(annotation({"type": "rating", "from_name": "stars", "value": {"rating": 3}})),
    ]

    labels = read(tasks)

    assert short(labels) == [("a", "edges", "positive", "human 7")]
    assert labels.passed_over == [
        "1 answers that are no choice, 1 choices left empty, 2 drafts, 1 predictions, "
        "1 skipped annotations, 1 tasks without an annotation passed over; submit the drafts "
        "in Label Studio and export again"
    ]


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ([task(drafts=[{"result": [EDGES]}])], "1 drafts, 1 tasks .* submit the drafts"),
        ([task(annotation(EDGES, was_cancelled=True))], "1 skipped annotations passed over$"),
        ([task(annotation(said("edges")))], "1 choices left empty passed over$"),
        ([task(annotation(said("edges", value={})))], "1 choices left empty passed over$"),
        ([], "it is empty"),
    ],
)
def test_an_export_without_a_judgement_is_refused(read, tasks, says):
    with pytest.raises(AnnotationError, match=rf"export.json holds no judgement: {says}"):
        read(tasks)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (said("edges", "positive", "negative"), r"'edges' has the choices .*one pole is right"),
        (said("edges", "positive", "positive"), r"'edges' has the choices"),
        (said("edges", {"a": 1}), r"'edges' has the choices"),
        (said("edges", value={"choices": "positive"}), "no from_name or no value"),
        (said("edges", value=None), "no from_name or no value"),
        (said(None, "positive"), "no from_name or no value"),
        (said("edges", "superb"), "pole should be positive, negative"),
        (said("hue", "positive"), "the tree has no criterion 'hue'"),
    ],
)
def test_a_choice_that_is_not_one_pole_is_a_mistake(read, result, says):
    with pytest.raises(AnnotationError, match=rf"task 1: .*{says}"):
        read([task(annotation(result))])


def test_a_person_who_says_two_things_of_one_picture_is_asked_which(read):
    other = annotation(said("edges", "soft <edges>"))

    with pytest.raises(
        AnnotationError, match="task 2: human 7 says negative of edges, and positive in task 1"
    ):
        read([task(annotation(EDGES)), task(other, number=2)])
    assert len(read([task(annotation(EDGES), annotation(EDGES))]).judgements) == 2


@pytest.mark.parametrize(
    "data", [{}, {"file": None}, {"file": " ", "sha256": ""}, {"sha256": 7}]
)
def test_an_uploaded_picture_is_not_known(read, data):
    data = {"image": "/data/upload/1/ab12-a.png"} | data

    with pytest.raises(AnnotationError) as caught:
        read([task(annotation(EDGES), data=data)])

    assert "task 1: data.file is absent" in str(caught.value)
    assert "/data/upload/1/ab12-a.png" in str(caught.value)
    assert "atelier labels export" in str(caught.value)


@pytest.mark.parametrize(
    "tasks",
    [
        [{"id": 1, "image": "a.png"}],
        [{"id": 1, "data": {"file": "a.png"}}],
        {"id": 1, "data": [], "annotations": []},
        [7],
        "7",
        '"text"',
    ],
)
def test_another_export_is_no_export(read, tasks):
    with pytest.raises(AnnotationError, match=r"task 1: is no task .*JSON-MIN and CSV"):
        read(tasks)


@pytest.mark.parametrize("odd", [None, 7, [], {}, {"result": None}, {"result": {}}])
def test_an_annotation_without_results_is_a_mistake(read, odd):
    with pytest.raises(AnnotationError, match="task 1: an annotation has no list 'result'"):
        read([task(odd)])


@pytest.mark.parametrize("text", ["file,criterion", "[" * 100_000, "1" * 5000, r'["\ud800"]'])
def test_an_export_that_cannot_be_read_is_one_paragraph(read, text):
    with pytest.raises(AnnotationError, match="is not JSON"):
        read(text)
