"""prefect.yaml against dvc.yaml and the flows that it names."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, temporary_settings

from atelier.config.profile import read_in_force
from flows.dvc import stages
from flows.dvc.overrides import Changes
from flows.infra import clone, prefect_setup, remote_stage
from tasks.run import paths

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

    assert (pool in prefect_setup.SHARED_POOLS) == (
        deployment["entrypoint"] == "flows.infra.remote_stage:on_worker"
    )
    assert (pool == "{{ $ATELIER_POOL }}") == (pool not in prefect_setup.SHARED_POOLS)


def test_deployments_are_named_for_what_they_do_and_where():
    names = [one["name"] for one in DEPLOYMENTS]

    assert len(set(names)) == len(names)
    for one in DEPLOYMENTS:
        what = one["entrypoint"].partition(":")[2].replace("_", "-")
        assert one["name"] in {f"{what}@{{{{ $ATELIER_POOL }}}}", *prefect_setup.SHARED_POOLS}


def test_two_clones_have_two_pools_and_one_clone_one(tmp_path, monkeypatch):
    found = []
    for place in ("a/atelier", "b/atelier", "a/atelier"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / place)
        found.append(clone.pool())

    assert found[0] == found[2] != found[1]
    assert all(name.startswith("atelier-") for name in found)


@EACH
def test_serve_makes_the_same_deployment(deployment):
    (filled,) = (
        one
        for one in prefect_setup.deployments()
        if one["entrypoint"] == deployment["entrypoint"]
        and one["description"] == deployment["description"]
        and one["work_pool"]["name"] in {clone.pool(), deployment["work_pool"]["name"]}
    )
    deployment = deployment | {"name": filled["name"]}
    made = prefect_setup._deployment(filled)

    assert (made.name, made.description) == (deployment["name"], deployment["description"])
    assert made.entrypoint == deployment["entrypoint"]
    assert len(made.schedules) == len(deployment.get("schedules", []))


def test_the_form_knows_the_stages_of_dvc_yaml_and_the_types_of_the_settings():
    schema = load_flow_from_entrypoint("flows.reproduce:reproduce").parameters.model_dump()

    (listed, _) = schema["properties"]["targets"]["anyOf"]
    guidance = schema["definitions"]["Changes"]["properties"]["guidance"]
    assert listed["items"]["enum"] == stages.names()
    assert (guidance["minimum"], guidance["type"]) == (1, "number")


def test_the_form_shows_the_values_in_force_and_has_fields_for_each_objective():
    profile = read_in_force(paths.PARAMS)
    fields = Changes.model_json_schema()["properties"]
    objectives = fields["objectives"]["properties"]

    assert fields["cpo_steps"]["description"].endswith(f"now **{profile.cpo.training.steps}**")
    assert fields["cpo_steps"]["title"] == "cpo.training.steps"
    assert list(objectives) == list(profile.cpo.objectives)
    for name, one in profile.cpo.objectives.items():
        rate = objectives[name]["properties"]["learning_rate"]
        assert rate["description"] == f"now **{one.learning_rate}**"
        assert "default" not in rate  # else a form would send what was in force once
        assert "objective" not in objectives[name]["properties"]


def test_forms_are_renewed_once_when_the_profile_changed(tmp_path, monkeypatch):
    renewed = []

    class Server:
        def read_deployments(self, limit):
            old = {"name": "reproduce", "id": 1, "parameter_openapi_schema": "of yesterday"}
            return [SimpleNamespace(**old)]

        def update_deployment(self, ident, change):
            renewed.append((ident, [*change.parameter_openapi_schema["definitions"]]))

    (tmp_path / "params").mkdir()
    (tmp_path / "params/profile.yaml").write_text("profile: a\n")
    (tmp_path / "params/a.yaml").write_text("old: true\n")
    (tmp_path / "prefect.yaml").write_text(
        "deployments: [{name: reproduce, entrypoint: 'flows.reproduce:reproduce'},"
        " {name: of-another-clone, entrypoint: 'flows.nightly:nightly'}]"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        prefect_setup, "get_client", lambda **_: contextlib.nullcontext(Server())
    )

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        for _ in range(2):
            prefect_setup.renew_forms()
        assert renewed == [(1, ["Changes"])]
        (tmp_path / "params/a.yaml").write_text("old: false\n")
        prefect_setup.renew_forms()

    assert len(renewed) == 2


def test_a_profile_that_cannot_be_read_leaves_a_form_without_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert "now" not in Changes.model_json_schema()["properties"]["prompts"]["description"]


def test_a_stage_that_dvc_yaml_does_not_have_has_no_flow():
    from flows import stage_flows as single

    with pytest.raises(AttributeError, match="has no flow trian"):
        single.trian  # noqa: B018
