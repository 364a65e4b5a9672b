"""prefect.yaml against dvc.yaml and the flows that it names."""

from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows.dvc import stages
from flows.infra import prefect_setup, remote_stage

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
EACH = pytest.mark.parametrize(
    "deployment", DEPLOYMENTS, ids=[one["entrypoint"] for one in DEPLOYMENTS]
)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_each_stage_has_a_deployment_that_says_what_dvc_yaml_says():
    single = {
        one["entrypoint"].partition(":")[2]: one
        for one in DEPLOYMENTS
        if one["entrypoint"].startswith("flows.stage_flows:")
    }

    assert {
        stage.name: (stage.about, "gpu" if stage.meta.gpu else "cpu") for stage in stages.read()
    } == {name: (one["description"], one["tags"][-1]) for name, one in single.items()}


@EACH
def test_a_deployment_names_a_flow_and_its_parameters(deployment):
    flow = load_flow_from_entrypoint(deployment["entrypoint"])

    assert flow.name == deployment["entrypoint"].partition(":")[2].replace("_", "-")
    if flow.name != remote_stage.FLOW:  # whose parameters `reproduce` gives
        assert flow.validate_parameters(deployment["parameters"]) is not None
    assert deployment["description"]
    assert "atelier" in deployment["tags"]
    assert all(schedule["active"] is False for schedule in deployment.get("schedules", []))


@EACH
def test_only_what_is_sent_to_workers_may_run_in_their_clones(deployment):
    pool = deployment["work_pool"]["name"]

    assert pool in prefect_setup.POOLS
    assert pool == deployment["name"]  # here, cpu or gpu
    assert (pool != "here") == (
        deployment["entrypoint"] == "flows.infra.remote_stage:on_worker"
    )


@EACH
def test_serve_makes_the_same_deployment(deployment):
    made = prefect_setup._deployment(deployment)

    assert (made.name, made.description) == (deployment["name"], deployment["description"])
    assert made.entrypoint == deployment["entrypoint"]
    assert len(made.schedules) == len(deployment.get("schedules", []))


def test_the_form_knows_the_stages_of_dvc_yaml_and_the_types_of_the_settings():
    schema = load_flow_from_entrypoint("flows.reproduce:reproduce").parameters.model_dump()

    (listed, _) = schema["properties"]["targets"]["anyOf"]
    omega = schema["definitions"]["Changes"]["properties"]["omega"]
    assert listed["items"]["enum"] == stages.names()
    assert {"minimum": 0, "type": "number"} in omega["anyOf"]


def test_a_stage_that_dvc_yaml_does_not_have_has_no_flow():
    from flows import stage_flows as single

    with pytest.raises(AttributeError, match="has no flow trian"):
        single.trian  # noqa: B018
