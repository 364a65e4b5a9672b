"""The criteria files that are shipped: their counts, and what a reader would object to."""

import re
from pathlib import Path

import pytest

from atelier.criteria import wording
from atelier.criteria.tree import Branch, parse

ROOT = Path(__file__).parents[2]
DOMAINS = ("painting", "photography")
EACH_DOMAIN = pytest.mark.parametrize("domain", DOMAINS)


@pytest.fixture(scope="module")
def trees():
    return {domain: parse(ROOT / f"params/criteria/{domain}.yaml") for domain in DOMAINS}


def test_painting_has_246_pairs_under_7_roots_on_5_levels(trees):
    painting = trees["painting"]

    assert len(painting.leaves()) == 246
    assert painting.roots() == [
        "composition",
        "color-relations",
        "light-and-shadow",
        "brushstroke-and-texture",
        "space-and-perspective",
        "form-and-line",
        "theme-and-mood",
    ]
    assert painting.depth() == 5
    assert {path.count("/") + 1 for path in painting.leaves()} == {5}


def test_no_root_of_painting_outweighs_another(trees):
    painting = trees["painting"]

    for root in painting.roots():
        pairs = [path for path in painting.leaves() if path.startswith(f"{root}/")]
        assert 30 <= len(pairs) <= 40, root


def test_photography_is_another_domain_in_the_same_schema(trees):
    photography = trees["photography"]

    assert len(photography.leaves()) >= 40
    assert photography.depth() >= 3
    assert photography.roots() != trees["painting"].roots()


@EACH_DOMAIN
def test_a_reader_objects_to_no_word(trees, domain):
    assert list(wording.objections(trees[domain])) == []


@EACH_DOMAIN
def test_every_branch_divides(trees, domain):
    def branches(nodes, above=""):
        for key, node in nodes.items():
            if isinstance(node, Branch):
                yield f"{above}{key}", node
                yield from branches(node.branches, f"{above}{key}/")

    for path, branch in branches(trees[domain].criteria):
        assert len(branch.branches) >= 2, path
        assert wording.is_sentence(branch.about), path


@EACH_DOMAIN
def test_no_definition_serves_twice(trees, domain):
    leaves = trees[domain].leaves().values()
    definitions = [
        text for leaf in leaves for text in (leaf.positive_means, leaf.negative_means)
    ]

    assert len(set(definitions)) == len(definitions)


@EACH_DOMAIN
def test_the_vocabulary_is_used_to_the_last_word(trees, domain):
    tree = trees[domain]
    facets = list(tree.vocabulary.values())
    words = [word for facet in facets for word in facet]
    used = {word for leaf in tree.leaves().values() for word in leaf.applies}

    assert len(set(words)) == len(words), "a word of two facets would have two meanings"
    assert set(words) <= used


@EACH_DOMAIN
def test_every_criterion_rests_on_a_book_with_author_title_and_year(trees, domain):
    tree = trees[domain]

    assert all(leaf.sources for leaf in tree.leaves().values())
    for key, book in tree.literature.items():
        assert re.search(r"^.+, .+, .*(\d{3,4}|\d\dth century)$", book), key


@pytest.mark.parametrize(
    ("words", "own", "foreign"),
    [
        (
            ["ink-wash", "landscape", "chinese-ink"],
            "brushstroke-and-texture/tools-and-schools/brush-and-ink/brush/bone-method",
            "light-and-shadow/lighting/source/logic/one-direction",
        ),
        (
            ["watercolour", "landscape", "naturalist"],
            "light-and-shadow/modelling/other-ways/ink-and-wash/saved-whites",
            "brushstroke-and-texture/paint/body/thickness/impasto",
        ),
        (
            ["acrylic", "abstract"],
            "color-relations/purpose/meaning/abstract-colour/push-and-pull",
            "form-and-line/construction/body/build/anatomy",
        ),
        (
            ["print", "landscape", "decorative"],
            "space-and-perspective/other-spaces/flat-space/planar/kept-flat",
            "space-and-perspective/atmosphere/fading/tone-and-hue/contrast-fade",
        ),
    ],
)
def test_a_tradition_is_judged_by_its_own_rules(trees, words, own, foreign):
    painting = trees["painting"]
    judged = painting.applicable(words)

    assert own in judged
    assert foreign in painting.leaves()
    assert foreign not in judged


def test_the_guide_counts_what_each_kind_of_painting_is_judged_by(trees):
    guide = (ROOT / "docs/criteria.md").read_text(encoding="utf-8")
    counted = re.findall(r"^\| ([a-z-]+(?:, [a-z-]+)*) \| (\d+) \|$", guide, re.MULTILINE)

    assert len(counted) >= 5
    for words, pairs in counted:
        assert len(trees["painting"].applicable(words.split(", "))) == int(pairs), words
