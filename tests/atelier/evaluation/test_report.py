import dataclasses
import re

import numpy as np
import pytest

from atelier.criteria.tree import Tree
from atelier.evaluation import comparison, report
from atelier.evaluation.comparison import Painted, Real
from atelier.evaluation.page import Coverage, DataSheet, Page, Painter, Part

LEAF = {"positive_means": "", "negative_means": "", "applies": "any", "sources": []}
TREE = Tree.model_validate(
    {
        "domain": "toy",
        "version": "1",
        "literature": {},
        "criteria": {
            "colour": {
                "name": "Colour <i>",
                "about": "",
                "branches": {"key": {"positive": "in key", "negative": "off <key>", **LEAF}},
            },
            "light": {"positive": "clear", "negative": "dull", **LEAF},
        },
    }
)
BAD = {"colour/key": "negative", "light": "negative"}
GOOD = {"light": "positive"}
ATTACK = "<script>alert('caption')</script>"


class MeanColour:
    name = "mean-colour"

    def features(self, images):
        return np.array([image.mean(axis=(0, 1)) for image in images])


def pictures(count, seed, side=8):
    return list(
        np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    )


@pytest.fixture
def page():
    painted = {
        "base": Painted(pictures(4, 1), [BAD, BAD, BAD, GOOD], None),
        "cpo-s": Painted(pictures(4, 2), [GOOD, GOOD, BAD, {}], None),
    }
    measured = comparison.compare(
        painted,
        Real(pictures(5, 3), [True] * 5),
        TREE,
        MeanColour(),
        reference="base",
        resamples=100,
        seed=0,
    )
    curve = {"loss": [(1, 0.5), (2, 0.4)], "drift": [(1, 0.1), (2, 0.3)]}
    return Page(
        painters={
            name: Painter(
                name, ATTACK, painted[name], measured[name], curve if name != "base" else {}
            )
            for name in painted
        },
        reference="base",
        featured="cpo-s",
        prompts=[ATTACK, 'a "sea"', "c", "d"],
        grid_prompts=2,
        tree=TREE,
        annotator="measured-1",
        second=None,
        data=DataSheet(
            [Part("train", 4, 1.0, 0.5)],
            {path: Coverage(0.5, 0.25) for path in TREE.leaves()},
            [(f"{ATTACK}.png", "empty")],
        ),
        provenance=[("Command", f"evaluate {ATTACK}")],
        params=f"x: {ATTACK}",
    )


def test_whatever_comes_from_outside_is_escaped(page):
    html = report.render(page)

    assert "<script" not in html
    assert "off <key>" not in html
    assert "Colour <i>" not in html
    # caption in grid, picture's alternative, cases; file; sentence; params; provenance
    assert html.count("&lt;script&gt;") >= 7


def test_nothing_is_loaded_from_elsewhere(page):
    html = report.render(page)

    sources = re.findall(r"""(?:src|href|srcset|data|poster)\s*=\s*["']([^"']*)""", html)
    assert sources
    assert all(source.startswith(("data:image/webp;base64,", "#")) for source in sources)
    assert not re.search(r"https?://|url\(|@import|<link|<iframe|<object|<form", html)


def test_the_same_results_give_the_same_bytes(page):
    assert report.render(page) == report.render(page)


def test_every_picture_has_an_alternative_and_every_table_its_heads(page):
    html = report.render(page)

    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img[^>]*>", html))
    assert all("scope=" in tag for tag in re.findall(r"<th[ >][^>]*>?", html))
    for target in re.findall(r'(?:href="#|aria-labelledby=")([a-z-]+)"', html):
        assert f'id="{target}"' in html


def test_the_finding_by_hand(page):
    # base: (2 + 2 + 2 + 0) / 4 = 1.5; cpo-s: (0 + 0 + 2 + 0) / 4 = 0.5
    said = report.finding(page)

    assert said.startswith(
        "On 4 test captions, cpo-s shows 0.50 negative attributes an image where base shows "
        "1.50 (67% fewer); the 95% intervals overlap."
    )


def test_the_best_of_each_column_is_bold(page):
    best = report._best(page)

    assert best["negatives"] == {"cpo-s"}
    assert best["colour"] == {"cpo-s"}
    assert "second" not in best


def test_nobody_is_best_where_all_are_equal(page):
    same = dict.fromkeys(page.painters, page.painters["base"])

    assert not any(report._best(dataclasses.replace(page, painters=same)).values())


def test_cases_are_the_largest_gain_and_the_largest_rest(page):
    # changes: -2, -2, 0, 0; the featured θ still shows two negatives on prompt 2
    assert report._chosen_cases(page) == [0, 1, 2, 3]


def test_large_pictures_are_made_to_fit(page, monkeypatch):
    monkeypatch.setattr(report, "_MOST_BYTES", 30_000)
    large = {
        name: dataclasses.replace(
            painter, painted=dataclasses.replace(painter.painted, images=pictures(4, 5, 400))
        )
        for name, painter in page.painters.items()
    }

    html = report.render(dataclasses.replace(page, painters=large))

    embedded = sum(map(len, re.findall(r"base64,([^\"]*)", html)))
    assert embedded < 16 * 9_000  # 96 pixels a side, noise
