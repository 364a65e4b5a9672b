"""Links into MLflow's pages, as text; test_in_a_browser.py follows them."""

import json
from urllib.parse import parse_qs, urlsplit

from tasks.tracking import connection, links
from tests.tasks.tracking.test_registry import THETA


def test_the_comparison_names_a_model_and_the_source_run_of_each_version(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ana:secret@127.0.0.1:5001/")

    page = links.comparison("a model", {"1": "aa", "2": "bb"})

    assert page.startswith("http://127.0.0.1:5001/#/compare-model-versions?")
    asked = parse_qs(urlsplit(page).fragment.partition("?")[2])
    # As MLflow's page reads them; it renders nothing of runs by version turned around.
    assert json.loads(asked["name"][0]) == "a%20model"
    assert json.loads(asked["runs"][0]) == {"1": "aa", "2": "bb"}


def test_the_pages_of_a_profile_are_printed(workspace, mlflow_folder):
    assert links.lines() == []
    mlflow = connection.client()
    experiment = mlflow.create_experiment("atelier-starter")
    mlflow.create_registered_model(THETA)
    sources = [mlflow.create_run(experiment).info.run_id for _ in range(2)]
    for run in sources:
        mlflow.create_model_version(THETA, f"runs:/{run}/lora", run)

    said = dict(line.split() for line in links.lines())

    assert said.keys() == {"runs", "models", "comparison"}
    assert said["models"] == f"http://127.0.0.1:5000/#/models/{THETA}"
    assert f"/#/experiments/{experiment}/runs" in said["runs"]
    compared = parse_qs(urlsplit(said["comparison"]).fragment.partition("?")[2])["runs"][0]
    assert json.loads(compared) == {"1": sources[0], "2": sources[1]}
