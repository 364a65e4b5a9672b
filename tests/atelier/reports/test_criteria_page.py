from html.parser import HTMLParser

import pytest

from atelier.criteria.tree import Tree
from atelier.reports import criteria_page

HOSTILE = "<script>alert(1)</script>"


def leaf(positive, negative, **more):
    return {
        "positive": positive,
        "negative": negative,
        "positive_means": "It is so.",
        "negative_means": "It is otherwise.",
        "applies": "any",
        "sources": ["dow"],
        **more,
    }


@pytest.fixture
def tree():
    return Tree.model_validate(
        {
            "domain": "painting",
            "version": "3",
            "literature": {"dow": f"Dow, Composition {HOSTILE}, 1899"},
            "vocabulary": {"medium": ["oil", "ink"]},
            "criteria": {
                "composition": {
                    "name": "Composition",
                    "about": "How the surface is divided.",
                    "branches": {
                        "balance": leaf("balanced masses", "lopsided & heavy"),
                        "edges": {
                            "name": "Edges",
                            "about": "Where shapes meet.",
                            "branches": {
                                "quality": leaf(
                                    "crisp edges",
                                    "blurred edges",
                                    applies=["oil"],
                                    aliases=["edges"],
                                    measure={"name": "m", "positive_at": 2, "negative_at": 1},
                                )
                            },
                        },
                    },
                },
                "harmony": leaf("harmonious palette", HOSTILE),
            },
        }
    )


class Reader(HTMLParser):
    """Collects what the page is made of."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.loads = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.loads += [found[name] for name in ("src", "href", "action") if name in found]
        if tag not in {"meta", "input", "wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_every_criterion_and_branch_unfolds_and_has_an_address(tree):
    reader = read(criteria_page.html(tree))

    assert reader.tags.count("details") == 2 + 3
    assert {"composition", "composition/edges", *tree.leaves()} <= set(reader.ids)


def test_the_page_loads_nothing_from_anywhere(tree):
    text = criteria_page.html(tree)

    assert all(address.startswith("#") for address in read(text).loads)
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")


def test_what_the_file_says_is_escaped(tree):
    text = criteria_page.html(tree)

    assert read(text).tags.count("script") == 1
    assert HOSTILE not in text
    assert "lopsided &amp; heavy" in text


def test_the_page_says_all_that_is_known_of_a_pair(tree):
    text = criteria_page.html(tree)

    for known in (
        "3 pairs under 2 roots, 3 levels, version 3",
        "Dow, Composition",
        "<option>ink</option>",
        'data-applies="oil"',
        "every picture",
        "<code>m</code>, good from 2.0, bad from 1.0",
        "<code>edges</code>",
    ):
        assert known in text


def test_the_outline_counts_the_roots_and_lists_what_is_below(tree):
    lines = criteria_page.markdown(tree).splitlines()

    assert lines[2:4] == [
        "| Composition | 2 | How the surface is divided. |",
        "| harmony | 1 | It is so. |",
    ]
    assert "- `balance` balanced masses ↔ lopsided & heavy" in lines
    assert "- **Edges.** Where shapes meet." in lines
    assert "  - `quality` crisp edges ↔ blurred edges · *oil*" in lines
    assert lines.count("</details>") == 2
