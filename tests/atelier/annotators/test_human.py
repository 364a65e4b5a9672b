import pytest

from atelier.annotators import human
from atelier.criteria.annotations import Image
from atelier.criteria.tree import parse
from atelier.errors import AnnotationError

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
    def read(text, annotator=None):
        (tmp_path / "labels.csv").write_text(text)
        path = tmp_path / "labels.csv"
        return human.read_csv(path, tree, human.known(IMAGES), annotator).judgements

    return read


def short(judgements):
    return [(one.image[0], one.criterion, one.pole, one.annotator) for one in judgements]


def test_a_table_may_speak_in_poles_or_in_their_words(read):
    judgements = read(
        "file,criterion,pole,annotator,confidence\n"
        "a.png,light/clear,positive,ann,0.8\n"
        "b.png,light/bright,Dull  light,ann,\n"
        "b.png,edges,abstain,ann,\n"
        f"{'b' * 64},edges,negative,bob,1\n"
    )

    assert short(judgements) == [
        ("a", "light/clear", "positive", "ann"),
        ("b", "light/clear", "negative", "ann"),
        ("b", "edges", "negative", "bob"),
    ]
    assert [one.confidence for one in judgements] == [0.8, 1.0, 1.0]


def test_all_mistakes_of_a_table_are_named_at_once(read):
    with pytest.raises(AnnotationError) as caught:
        read(
            "file,criterion,pole,confidence\n"
            "a.png,light,positive,1\n"
            "c.png,edges,positive,1\n"
            "a.png,edges,good,1\n"
            "a.png,edges,positive,90\n",
            "ann",
        )

    said = str(caught.value)
    assert "line 2: the tree has no criterion 'light'" in said
    assert "line 3: there is no picture 'c.png'" in said
    assert "line 4: pole should be positive, negative or abstain, or 'crisp edges'" in said
    assert "line 5: confidence: input should be less than or equal to 1, got '90'" in said


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("file;criterion;pole\n", "should have the columns"),
        ("", "should have the columns"),
        ("file,criterion,pole\n", "does not say who judged"),
    ],
)
def test_a_table_that_is_none_says_what_it_lacks(read, text, cure):
    with pytest.raises(AnnotationError, match=cure):
        read(text)


def test_a_quote_left_open_is_said(read):
    with pytest.raises(AnnotationError, match=r"line \d: unexpected end of data"):
        read('file,criterion,pole,annotator\na.png,edges,positive,"ann')


def test_labels_are_found_in_any_spelling(tmp_path, tree):
    images = [IMAGES[0].model_copy(update={"file": "e\u0301.png"})]
    path = tmp_path / "labels.csv"
    path.write_text(
        "FILE, criterion ,pole,annotator\n"
        "\u00e9.png,edges, Positive,Jose\u0301  M.\n"
        "./e\u0301.png , light/clear,negative,Jos\u00e9 M.\n"
        f"{'A' * 64},./edges,crisp edges,ann\n"
        ",,,\n"
    )

    judgements = human.read_csv(path, tree, human.known(images), None).judgements

    assert short(judgements) == [
        ("a", "edges", "positive", "Jos\u00e9 M."),
        ("a", "light/clear", "negative", "Jos\u00e9 M."),
        ("a", "edges", "positive", "ann"),
    ]


def test_rows_without_a_pole_are_counted(tmp_path, tree):
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,criterion,pole\na.png,edges,\na.png,light/clear,positive\nb.png,edges,Abstain\n"
    )

    labels = human.read_csv(path, tree, human.known(IMAGES), "ann")

    assert len(labels.judgements) == 1
    assert labels.passed_over == ["2 rows have no pole and say nothing (lines 2, 4)"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [("", "it is empty"), ("a.png,edges,\n" * 12, r"12 rows have no pole .*lines 2, .*, …")],
)
def test_a_table_without_a_judgement_is_refused(read, rows, says):
    with pytest.raises(AnnotationError, match=rf"labels.csv holds no judgement: {says}"):
        read(f"file,criterion,pole\n{rows}", "ann")


def test_a_row_that_ends_before_its_pole_is_a_mistake(read):
    with pytest.raises(AnnotationError, match="line 2: 2 columns, the header has 3"):
        read("file,criterion,pole\na.png,edges\n", "ann")


def test_labels_may_be_json_lines(tmp_path, tree):
    path = tmp_path / "labels.jsonl"
    path.write_text(
        '{"file": "a.png", "criterion": "edges", "pole": "positive", "confidence": 0.5}'
    )

    (found,) = human.read_csv(path, tree, human.known(IMAGES), "ann").judgements

    assert (found.criterion, found.confidence) == ("edges", 0.5)
