"""A page with every section, small: what report and cards are rendered from."""

import dataclasses

import numpy as np
import pytest

from atelier.certificates import correction
from atelier.certificates.certificate import Certificate
from atelier.criteria.tree import Tree
from atelier.metrics import about, comparison, suite
from atelier.metrics.comparison import Painted, Real
from atelier.metrics.scorer import Compute
from atelier.reports.evaluation_data import (
    Coverage,
    DataSheet,
    Page,
    Painter,
    Pair,
    Part,
    Sweep,
)

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
    name = identity = "mean-colour"

    def features(self, images):
        return np.array([image.mean(axis=(0, 1)) for image in images])


def pictures(count, seed, side=8):
    return list(
        np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    )


@pytest.fixture
def page(tmp_path):
    painted = {
        "base": Painted(pictures(4, 1), [BAD, BAD, BAD, GOOD], None),
        "cpo-s": Painted(pictures(4, 2), [GOOD, GOOD, BAD, {}], None),
    }
    learned = np.random.default_rng(5).uniform(0, 255, (6, 3))
    seen = MeanColour().features
    measured = comparison.compare(
        painted,
        {
            name: comparison.measure(
                one.images,
                seen(one.images),
                Real(seen(pictures(5, 3)), [True] * 5, learned),
                metrics=["fid", "kid", "vendi", "memorisation"],
                captions=[ATTACK, 'a "sea"', "c", "d"],
                extractor="mean-colour",
                seed=0,
            )
            for name, one in painted.items()
        },
        TREE,
        scores={"clipscore": {"base": np.arange(4.0), "cpo-s": np.arange(4.0) + 1}},
        captions=[ATTACK, 'a "sea"', "c", "d"],
        reference="base",
    )
    curve = {"loss": [(1, 0.5), (2, 0.4)], "drift": [(1, 0.1), (2, 0.3)]}
    return Page(
        painters={
            name: Painter(
                name, ATTACK, 1, painted[name], measured[name], curve if name != "base" else {}
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
        entries={
            **suite.survey(
                ["fid", "kid", "vendi", "memorisation", "pickscore"],
                tmp_path,
                Compute("cpu", "float32"),
                features="starter",
            ),
            "clipscore": about.Entry(
                suite.ALL["clipscore"], {"clip-l/model.safetensors": "ab" * 32}, "float32", None
            ),
        },
        extractor="mean-colour",
        unseen=(2.5, 4),
        pairs={"cpo-s": [Pair(1, pictures(1, 9)[0], ATTACK, 0.8)]},
        sweeps=[Sweep("ω of CPO-S", "ω", [(0, "base"), (10, "cpo-s")])],
        studies=[],
        data=DataSheet(
            [Part("train", 4, 1.0, 0.5)],
            {path: Coverage(0.5, 0.25) for path in TREE.leaves()},
            [(f"{ATTACK}.png", "empty")],
        ),
        provenance=[("Command", f"evaluate {ATTACK}")],
        params=f"x: {ATTACK}",
    )


def part(share, low, high, count=40):
    return {"estimate": share, "low": low, "high": high, "count": count}


def standing(verdict, found=None):
    """A standing in which one control ends so, and of which faults are found so often."""
    against = {
        "both": 40, "agree": part(0.95, 0.8, 0.99), "kappa": part(0.8, 0.6, 0.9),
        "sensitivity": found, "specificity": found, "missed": part(0.1, 0, 0.3), "alone": 2,
    }  # fmt: skip
    control = {"kept": part(0.5, 0.3, 0.7), "opposed": 0.4, "verdict": verdict}
    return {
        "spoke": part(0.9, 0.8, 0.95),
        "controls": {"repeated": {**control, "verdict": "passes"}, "recompressed": control},
        "against": {"<the painter>": against},
        "overconfidence": part(-0.05, -0.1, 0.0),
        "compared": {"settled": part(1.0, 0.9, 1.0), "<the painter>": part(0.9, 0.7, 0.97)},
    }


@pytest.fixture
def certificate():
    """A certificate: light fails a control, and colour/key alone can be corrected."""
    standings = {
        "colour/key": standing("passes", part(0.9, 0.75, 0.97)),
        "light": standing("fails"),
    }
    return Certificate.model_validate(
        {
            "format": 1,
            "annotator": "measured-1",
            "criteria": TREE.identity,
            "settings": {},
            "pictures": 40,
            "unanswered": 1,
            "units": 40,
            "of": "pictures <of> a test",
            "references": {"<the painter>": "the <truth>"},
            "asked": {"repeated": "again", "recompressed": "as a JPEG"},
            "standings": standings,
            "roots": {"colour": standings["colour/key"], "light": standings["light"]},
            "calibration": [{"said": 0.7, "right": part(0.8, 0.7, 0.9)}],
            "cost": {"calls": 5.0, "cost": 0.012},
            "made": "2026-01-01",
        }
    )


@pytest.fixture
def certified(page, certificate):
    """The page, of an annotator with a certificate."""
    corrected = {
        name: correction.correct(one.painted.found, page.prompts, certificate)
        for name, one in page.painters.items()
    }
    return dataclasses.replace(page, certificate=certificate, corrected=corrected)
