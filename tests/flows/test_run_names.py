"""Names of runs: what differs, who asked, and names that a person typed."""

import subprocess
from types import SimpleNamespace

import pytest
import yaml
from prefect.utilities.names import generate_slug

from flows import run_names
from tasks.run import paths
from tasks.tracking import run_names as names


def test_prefects_own_names_are_told_from_those_that_a_person_typed():
    assert all(run_names.is_made_up(generate_slug(2)) for _ in range(200))
    for typed in ("omega-two", "monday", "ω = 2", "a-b-c", "first try"):
        assert not run_names.is_made_up(typed)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function that names the run of a flow."""
    monkeypatch.chdir(tmp_path)
    paths.PARAMS.mkdir()
    paths.SWITCH.write_text("profile: starter\n")
    monkeypatch.setattr(names, "user", lambda: "ana")

    def asked(flow, name="amber-otter", run=None, **parameters):
        monkeypatch.setattr(run_names, "_current", lambda: run)
        flow_run = SimpleNamespace(name=name, flow_name=flow, parameters=parameters)
        monkeypatch.setattr(run_names, "runtime", SimpleNamespace(flow_run=flow_run))
        return run_names.of_run()

    return asked


def by(auto, who=None):
    created = None if who is None else SimpleNamespace(display_value=who)
    return SimpleNamespace(deployment_id="d", auto_scheduled=auto, created_by=created)


def test_a_run_is_called_after_what_was_asked_and_by_whom(asked):
    assert asked("reproduce") == "starter: all stages · by ana"
    changes = {"objectives": {"cpo-s": {"omega": 2, "k": None}}, "prompts": 24}
    assert asked("reproduce", targets=["sft"], changes=changes) == (
        "starter: sft, prompts=24, cpo-s ω=2 · by ana"
    )
    assert asked("cpo", run=by(False)) == "starter: cpo · by the pages"
    assert asked("nightly", run=by(True)) == "starter: nightly · by the schedule"
    assert asked("compare", first="serving", second="champion") == (
        "starter: champion against serving · by ana"
    )
    assert asked("reproduce", name="monday's try") == "monday's try"


def test_a_name_that_the_form_proposes_says_nothing_and_one_like_it_may_be_a_persons(asked):
    assert asked("sft", name="kappa5-bopak") == "starter: sft · by ana · kappa5-bopak"
    assert asked("sft", name="lambda") == "starter: sft · by ana · lambda"


def test_what_differs_from_the_last_commit_is_told_in_short(asked, tmp_path):
    file = paths.profile("starter")
    settings = {"cpo": {"objectives": {"cpo-s": {"omega": 4}}}, "generate": {"prompts": 100}}
    file.write_text(yaml.safe_dump(settings))
    assert names.differences() == {}  # there is no commit
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "All"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], check=True)
    assert names.differences() == {}

    settings["cpo"]["objectives"]["cpo-s"]["omega"] = 2
    file.write_text("# a comment\n" + yaml.safe_dump(settings))

    assert names.differences() == {"cpo.objectives.cpo-s.omega": 2}
    assert names.said(names.differences()) == "cpo-s ω=2"
    assert names.said({"a": 1, "b": 2, "c": 3, "d": 4}) == "a=1, b=2, c=3, and 1 more"
