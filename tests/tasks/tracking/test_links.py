"""Links into MLflow's pages, as text; test_in_a_browser.py follows them."""

import json
from urllib.parse import parse_qs, urlsplit

from tasks.tracking import links, registry
from tests.tasks.tracking.test_registry import THETA, report, track_with_dvc, train


def test_the_comparison_names_a_model_and_the_source_run_of_each_version(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ana:secret@127.0.0.1:5001/")

    page = links.comparison("a model", {"1": "aa", "2": "bb"})

    assert page.startswith("http://127.0.0.1:5001/#/compare-model-versions?")
    asked = parse_qs(urlsplit(page).fragment.partition("?")[2])
    # As MLflow's page reads them; it renders nothing of runs by version turned around.
    assert json.loads(asked["name"][0]) == "a%20model"
    assert json.loads(asked["runs"][0]) == {"1": "aa", "2": "bb"}


def test_the_command_registry_prints_runs_models_and_comparison(workspace, mlflow_folder):
    assert [line.split()[0] for line in links.lines()] == []
    track_with_dvc()
    train(cpo="a", cpo_s="b")
    report()
    registry.run()

    said = dict(line.split() for line in links.lines())

    assert said.keys() == {"runs", "models", "comparison"}
    assert said["models"] == f"http://127.0.0.1:5000/#/models/{THETA}"
    assert "/#/experiments/" in said["runs"]
    runs = json.loads(
        parse_qs(urlsplit(said["comparison"]).fragment.partition("?")[2])["runs"][0]
    )
    assert sorted(runs) == ["1", "2"]
