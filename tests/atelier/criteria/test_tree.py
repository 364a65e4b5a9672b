from pathlib import Path

import pytest
import yaml

from atelier.criteria.tree import Measure, Tree, parse
from atelier.errors import AnnotationError, CriteriaError

CRITERIA = Path(__file__).parents[3] / "params" / "criteria"


def leaf(positive, negative, **more):
    return {
        "positive": positive,
        "negative": negative,
        "positive_means": "It is so.",
        "negative_means": "It is not.",
        "applies": "any",
        "sources": ["arnheim"],
        **more,
    }


@pytest.fixture
def values():
    return {
        "domain": "painting",
        "version": "1",
        "literature": {"arnheim": "Arnheim, Art and Visual Perception, 1974"},
        "criteria": {
            "composition": {
                "name": "Composition",
                "about": "How the surface is divided.",
                "branches": {
                    "balance": leaf("balanced masses", "lopsided masses"),
                    "edges": {
                        "name": "Edges",
                        "about": "Where shapes meet.",
                        "branches": {
                            "quality": leaf("crisp edges", "blurred edges", aliases=["edges"])
                        },
                    },
                },
            },
            "harmony": leaf("harmonious palette", "clashing hues"),
        },
    }


def written(tmp_path, values):
    path = tmp_path / "tree.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def test_leaves_are_known_by_their_paths_in_the_order_of_the_file(tmp_path, values):
    tree = parse(written(tmp_path, values))

    assert list(tree.leaves()) == [
        "composition/balance",
        "composition/edges/quality",
        "harmony",
    ]
    assert tree.roots() == ["composition", "harmony"]
    assert tree.depth() == 3


def test_a_criterion_is_found_by_its_path_and_by_a_former_one(tmp_path, values):
    tree = parse(written(tmp_path, values))

    assert tree.criterion("harmony").phrase("positive") == "harmonious palette"
    assert tree.criterion("edges").phrase("negative") == "blurred edges"
    with pytest.raises(
        AnnotationError, match=r"'hue' is no criterion of painting 1, which has"
    ):
        tree.criterion("hue")


def test_between_its_thresholds_a_measure_abstains():
    low_is_good = Measure(name="offset", positive_at=0.1, negative_at=0.2)
    high_is_good = Measure(name="range", positive_at=45, negative_at=35)

    assert [low_is_good.pole(v) for v in (0.05, 0.1, 0.15, 0.2, 0.3)] == [
        "positive",
        "positive",
        None,
        "negative",
        "negative",
    ]
    assert [high_is_good.pole(v) for v in (50, 40, 30)] == ["positive", None, "negative"]


def test_a_broken_file_says_all_its_mistakes_at_once(tmp_path, values):
    branches = values["criteria"]["composition"]["branches"]
    del branches["balance"]["negative"]
    branches["Bad Name"] = leaf("some thing", "other thing", colour="red")
    branches["empty"] = {"name": "x", "about": "y", "branches": {}}
    branches["edges"]["branches"]["quality"]["positive_means"] = 3
    values["criteria"]["harmony"] = "harmonious"

    with pytest.raises(CriteriaError) as caught:
        parse(written(tmp_path, values))

    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'tree.yaml'} does not fit:\n")
    for mistake in (
        "composition/balance: a leaf needs both 'positive' and 'negative', has ['positive']",
        "composition/Bad Name: a name is lower-case words joined by hyphens",
        "composition/Bad Name: colour: extra inputs are not permitted, got 'red'",
        "composition/empty: branches should hold at least one node",
        "composition/edges/quality: positive_means: input should be a valid string, got 3",
        "harmony: should be a branch or a criterion, is 'harmonious'",
    ):
        assert f"  {mistake}\n" in text + "\n"


def test_contradictions_between_criteria_are_all_named(tmp_path, values):
    values["criteria"]["again"] = leaf("Balanced  masses", "heavy foot", sources=["itten"])
    values["criteria"]["renamed"] = leaf("warm light", "cold light", aliases=["harmony"])
    values["criteria"]["measured"] = leaf(
        "deep space", "no space", measure={"name": "m", "positive_at": 1, "negative_at": 1}
    )

    with pytest.raises(CriteriaError) as caught:
        parse(written(tmp_path, values))

    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "again: positive 'Balanced  masses' is already said by composition/balance",
        "again: source 'itten' is not in the file's literature",
        "renamed: alias 'harmony' is also a criterion",
        "measured: measure needs two different thresholds",
    ]


def test_mistakes_of_header_shape_and_meaning_are_named_together(tmp_path, values):
    values["colour"] = "red"
    values["criteria"]["composition"]["branches"]["edges"]["name"] = 3
    values["criteria"]["again"] = leaf("crisp edges", "soft edges")

    with pytest.raises(CriteriaError) as caught:
        parse(written(tmp_path, values))

    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "composition/edges: name: input should be a valid string, got 3",
        "colour: extra inputs are not permitted, got 'red'",
        "again: positive 'crisp edges' is already said by composition/edges/quality",
    ]


def test_a_misspelt_word_would_switch_a_criterion_off_and_is_named(tmp_path, values):
    values["vocabulary"] = {"medium": ["oil", "ink"], "genre": ["portrait", "landscape"]}
    values["criteria"]["glazes"] = leaf("glowing glazes", "brown glazes", applies=["oils"])
    values["criteria"]["never"] = leaf("some thing", "other thing", applies=[])

    with pytest.raises(CriteriaError) as caught:
        parse(written(tmp_path, values))

    text = str(caught.value)
    assert "glazes: applies to 'oils', which is not in the file's vocabulary" in text
    assert "never: applies" in text


@pytest.mark.parametrize(
    ("words", "judged"),
    [
        (["oil", "portrait"], ["balance", "glazes", "oil-sitters"]),
        (["oil", "abstract"], ["balance", "glazes"]),
        (["ink", "portrait"], ["balance"]),
        ([], ["balance"]),
    ],
)
def test_every_facet_that_a_criterion_names_has_to_match(words, judged, values):
    values["vocabulary"] = {
        "medium": ["oil", "ink"],
        "genre": ["portrait", "figure", "abstract"],
    }
    values["criteria"] = {
        "balance": leaf("balanced masses", "lopsided masses"),
        "glazes": leaf("glowing glazes", "brown glazes", applies=["oil"]),
        "oil-sitters": leaf(
            "glazed flesh", "chalky flesh", applies=["oil", "portrait", "figure"]
        ),
    }

    assert list(Tree.model_validate(values).applicable(words)) == judged


def test_words_outside_a_vocabulary_are_alternatives(values):
    values["criteria"] = {"depth": leaf("deep", "shallow", applies=["landscape", "city"])}
    tree = Tree.model_validate(values)

    assert list(tree.applicable(["city", "oil"])) == ["depth"]
    assert not tree.applicable(["portrait"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"criteria: [", "is not YAML"),
        (b"\xff\xfe", "is not YAML"),
        (b"", "the file should hold domain, version, literature and criteria"),
        (b"just words", "the file should hold domain, version, literature and criteria"),
        (b"criteria: {a: {x: 1}}", r"a: a leaf needs both 'positive' and 'negative', has \[\]"),
        (b"criteria: {a: 1, a: 2}", "'a' stands twice"),
        (b"criteria: {[1, 2]: {}}", "is not YAML|lower-case words"),
        (b"criteria: {}", "criteria: "),
    ],
)
def test_what_is_no_criteria_file_is_refused(tmp_path, content, says):
    path = tmp_path / "tree.yaml"
    path.write_bytes(content)

    with pytest.raises(CriteriaError, match=says):
        parse(path)


def test_an_absent_file_names_the_param_that_asked_for_it(tmp_path):
    with pytest.raises(CriteriaError, match=r"absent; `annotate.criteria` names a file of"):
        parse(tmp_path / "absent.yaml")


def test_a_folder_is_no_criteria_file(tmp_path):
    with pytest.raises(CriteriaError, match="is a folder; name a file in it"):
        parse(tmp_path)


def test_the_whole_tree_is_one_value(tmp_path, values):
    assert parse(written(tmp_path, values)) == Tree.model_validate(values)


def test_a_caption_rules_out_what_does_not_apply_to_it():
    painting = parse(CRITERIA / "painting.yaml")
    sky = "color-relations/temperature/modulation/local-colour/sky"
    body = "color-relations/intensity/purity/strength/full-body"

    assert sky in painting.conceivable("Views of a river")
    assert sky in painting.conceivable("two landscapes, Oil on canvas")
    assert sky not in painting.conceivable("a still_life with fish")
    assert sky not in painting.conceivable("Composition, abstract_painting")
    assert body in painting.conceivable("oil on panel")
    assert body not in painting.conceivable("a watercolor study of plums")


def test_without_a_vocabulary_a_caption_rules_nothing_out():
    starter = parse(CRITERIA / "starter.yaml")

    assert starter.conceivable("a portrait") == starter.leaves()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 5000, "nested too deeply"),
        ("&a {criteria: *a}", "stands for itself"),
        ("version: !!python/object/apply:os.system [ls]", "is not YAML"),
        ('domain: "\\udc80"', "half of a character"),
    ],
)
def test_yaml_that_nobody_means_is_one_paragraph(tmp_path, text, says):
    (tmp_path / "toy.yaml").write_text(text)

    with pytest.raises(CriteriaError, match=says):
        parse(tmp_path / "toy.yaml")


def test_a_name_ends_where_its_letters_end(tmp_path, values):
    values["criteria"]["light\n"] = leaf("clear light", "dull light")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(values))

    with pytest.raises(CriteriaError, match="lower-case words joined by hyphens"):
        parse(tmp_path / "toy.yaml")


@pytest.mark.parametrize("phrase", ["  ", " soft light", "soft\nlight", "soft \x1b[31mlight"])
def test_a_phrase_is_words(tmp_path, values, phrase):
    values["criteria"]["light"] = leaf("clear light", phrase)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(values))

    with pytest.raises(CriteriaError, match="light: negative: should be words"):
        parse(tmp_path / "toy.yaml")
