import hashlib
from typing import get_args

import pytest

from atelier.config.evaluation import MetricName
from atelier.metrics import suite, weights
from atelier.metrics.scorer import Compute
from atelier.reporting import silent

CPU = Compute("cpu", "bfloat16")


def test_params_name_the_metrics_that_there_are():
    assert set(get_args(MetricName)) == suite.ALL.keys()


@pytest.mark.parametrize("about", suite.ALL.values(), ids=lambda about: about.name)
def test_every_metric_says_what_it_is(about):
    assert about.says
    assert about.scale
    assert about.preprocessing
    assert about.better in {"higher", "lower"}
    assert set(about.weights) <= weights.MANIFEST.keys()


def test_without_weights_only_the_features_at_hand_are_available(tmp_path):
    found = suite.survey(list(suite.ALL), tmp_path, CPU, features="starter")

    assert [name for name, entry in found.items() if not entry.unavailable] == [
        "fid",
        "kid",
        "vendi",
        "memorisation",
    ]
    assert "`atelier weights --fetch pickscore` (3.9 GB)" in found["pickscore"].unavailable
    assert "--fetch clip-l aesthetic`" in found["aesthetic"].unavailable
    assert found["pickscore"].dtype == "bfloat16"


def test_inceptions_absence_takes_its_four_metrics_with_it(tmp_path):
    found = suite.survey(
        ["fid", "kid", "vendi", "memorisation"], tmp_path, CPU, features="inception"
    )

    assert all("--fetch inception`" in entry.unavailable for entry in found.values())


def test_with_weights_their_checksums_stand_beside_the_score(tmp_path, monkeypatch):
    toy = weights.Weights("", "", (weights.File("a/head.pth", "https://x", 1),))
    monkeypatch.setitem(weights.MANIFEST, "aesthetic", toy)
    monkeypatch.setitem(weights.MANIFEST, "clip-l", weights.Weights("", "", ()))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/head.pth").write_bytes(b"a head")
    weights.check(["aesthetic"], tmp_path, silent)

    entry = suite.survey(["aesthetic"], tmp_path, CPU, features="starter")["aesthetic"]

    assert entry.unavailable is None
    assert entry.files == {"a/head.pth": hashlib.sha256(b"a head").hexdigest()}


def test_one_set_of_weights_is_needed_once():
    assert suite.needed(["clipscore", "aesthetic", "fid"], features="starter") == [
        "clip-l",
        "aesthetic",
    ]
    assert suite.needed(["fid", "kid"], features="inception") == ["inception"]
