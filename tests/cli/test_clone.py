"""Commands in a subfolder of a clone, outside of any, and in a second clone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cli import clone
from cli.app import app

ROOT = Path(__file__).parents[2]
META = {"gpu": 0, "memory": 0, "retries": 0, "timeout": 60, "silence": 30}


@pytest.fixture
def below(tmp_path, monkeypatch, profile):
    """A clone's folder ``notes/``: the working directory."""
    (tmp_path / "params/criteria").mkdir(parents=True)
    shutil.copy(ROOT / "params/criteria/starter.yaml", tmp_path / "params/criteria")
    (tmp_path / "params/profile.yaml").write_text("profile: toy\n")
    (tmp_path / "params/toy.yaml").write_text(yaml.safe_dump(profile))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path / "notes")
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(app, words)


def test_a_command_works_in_a_subfolder(below):
    result = invoke("criteria", "check")

    assert result.exit_code == 0, result.stderr
    assert result.output.startswith("params/criteria/starter.yaml fits: ")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("cpo.omegaa=1", "'cpo.omegaa' is not a setting of the profile"),
        ("cpo.training.steps=-4", "cpo.training.steps: input should be greater than 0, got -4"),
        ("cpo", "give name=value"),
    ],
)
def test_a_mistyped_setting_is_refused_before_a_server_starts(
    below, monkeypatch, setting, says
):
    monkeypatch.setattr("cli.flow._to_end", lambda run: pytest.fail("a server was started"))
    stage = {"desc": "Split", "cmd": "true", "meta": META}
    (below / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"split": stage}}))
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=below, check=True
    )

    result = invoke("run", "--set", setting)

    assert result.exit_code == 2, result.output
    assert says in result.stderr


def test_in_a_subfolder_it_is_said_where_printed_paths_and_commands_are_meant(
    below, monkeypatch
):
    said = invoke("results")
    assert said.exit_code == 2
    assert said.stderr.splitlines() == [
        "Error: artifacts/report/metrics.json is absent; run `dvc repro report`",
        "Paths and commands above are those of the clone's root: cd ..",
    ]

    monkeypatch.chdir(below)
    assert "clone's root" not in invoke("results").stderr


def test_typed_paths_are_relative_to_the_users_folder(below):
    result = invoke(
        "criteria", "show", "../params/criteria/starter.yaml", "--html", "tree.html"
    )

    assert result.exit_code == 0, result.stderr
    assert (below / "notes/tree.html").is_file()
    assert result.output.startswith("notes/tree.html shows ")


def test_no_path_has_a_default_that_the_users_folder_would_move():
    from typer.main import get_command

    def leaves(command):
        below = getattr(command, "commands", {}).values()
        return [command, *(leaf for sub in below for leaf in leaves(sub))]

    typed = [
        parameter
        for command in leaves(get_command(app))
        for parameter in command.params
        if getattr(parameter.type_descriptor.parameter_info, "parser", None) is clone.path
    ]
    assert len(typed) > 10
    assert [one.name for one in typed if one.default is not None] == []


def test_outside_of_a_clone_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = invoke("criteria", "check")

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"Error: {tmp_path} is not inside a clone of atelier")


def test_help_needs_no_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert invoke("run", "--help").exit_code == 0


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        ("theta1", "theta1"),
        ("models:/atelier-starter-theta@champion", "models:/atelier-starter-theta@champion"),
        ("./lora", "notes/lora"),
        ("../artifacts/cpo/cpo-s", "artifacts/cpo/cpo-s"),
        ("/elsewhere/lora", "/elsewhere/lora"),
    ],
)
def test_a_models_name_stays_and_a_folder_is_seen_from_the_root(below, typed, seen):
    assert clone.model(typed) == seen


def test_the_code_of_the_clone_wins_over_the_installed_one(below):
    (below / "cli").mkdir()
    (below / "cli/__init__.py").write_text("")
    (below / "cli/__main__.py").write_text("import sys; print('its own', *sys.argv[1:])\n")

    done = subprocess.run(
        [sys.executable, "-c", "from cli.app import main; main()", "plan", "--set", "a=1"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )

    assert done.stdout == "its own plan --set a=1\n"
