"""A page with every section, small: what report and cards are rendered from."""

import numpy as np
import pytest

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
