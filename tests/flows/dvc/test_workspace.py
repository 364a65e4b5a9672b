"""The copy in which changed runs work: what it has of the repository, and what it leaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.dvc import workspace


def git(*words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    said = subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True)
    return said.stdout.strip()


def dvc(*words):
    from dvc.cli import main  # in this process: a new one costs seconds

    assert main([*words]) == 0


@pytest.fixture(params=["in git", "without git"])
def ours(request, repository):
    """The small repository, brought up to date, with what lies outside of git and DVC."""
    dvc("repro", "-q")
    for file in ("data/a.png", "base/starter/unet.bin", "artifacts/mlflow/mlflow.db"):
        (repository / file).parent.mkdir(parents=True)
        (repository / file).write_text(file)
    if request.param == "in git":
        (repository / ".gitignore").write_text("/out\n/data\n/artifacts\n/base\n__pycache__/\n")
        (repository / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
        git("init", "-q", "-b", "main")
        dvc("config", "--unset", "core.no_scm")
        git("add", "-A")
        git("commit", "-qm", "All")
    return repository


def test_a_copy_is_the_working_copy_with_what_is_not_committed(ours):
    (ours / "params/starter.yaml").write_text("colour: green\n")
    (ours / "new.py").write_text("new = 1\n")
    (ours / "work.py").unlink()

    with workspace.entered() as main:
        here = Path.cwd()
        assert (main, here) == (ours, ours / workspace.PLACE)
        assert Path("params/starter.yaml").read_text() == "colour: green\n"
        assert Path("new.py").is_file()
        assert not Path("work.py").exists()
        assert Path("out/look").read_text() == "colour: red\n" * 2
        assert Path("data/a.png").samefile(ours / "data/a.png")
        assert Path("base/starter/unet.bin").samefile(ours / "base/starter/unet.bin")
        Path("artifacts/mlflow/more").write_text("logged")
        assert os.environ["PYTHONPATH"].startswith(str(here))

    assert (ours / "artifacts/mlflow/more").read_text() == "logged"
    assert Path.cwd() == ours


def test_a_stage_that_never_ran_is_no_warning(ours, caplog):
    lock = ours / "dvc.lock"
    recorded = yaml.safe_load(lock.read_text())
    del recorded["stages"]["look"]
    lock.write_text(yaml.safe_dump(recorded))

    with workspace.entered():
        assert Path("out/train").is_file()

    assert caplog.records == []


def test_a_second_copy_has_nothing_of_the_first(ours):
    with workspace.entered():
        Path("params/starter.yaml").write_text("colour: blue\n")
        Path("scrap.txt").write_text("of the first run")
        dvc("repro", "-q")
    (ours / "data/a.png").unlink()
    (ours / "data/b.png").write_text("b")

    with workspace.entered():
        assert Path("params/starter.yaml").read_text() == "colour: red\n"
        assert not Path("scrap.txt").exists()
        assert [file.name for file in Path("data").iterdir()] == ["b.png"]
        assert Path("out/look").read_text() == "colour: red\n" * 2

    assert (ours / "out/look").read_text() == "colour: red\n" * 2


def test_what_a_copy_made_the_repository_finds_in_its_run_cache(ours):
    with workspace.entered():
        Path("params/starter.yaml").write_text("colour: blue\n")
        dvc("repro", "-q")
    (ours / "params/starter.yaml").write_text("colour: blue\n")

    said = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], capture_output=True, text=True, check=True
    )

    assert "Running stage" not in said.stdout
    assert (ours / "out/look").read_text() == "colour: blue\n" * 2


def test_a_remote_by_a_relative_path_is_found_from_the_copy(ours, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    dvc("remote", "add", "--local", "-d", "store", os.path.relpath(store))

    with workspace.entered():
        said = subprocess.run(
            [sys.executable, "-m", "dvc", "remote", "list"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip

    assert said.stdout.split() == ["store", str(store), "(default)"]


@pytest.mark.parametrize("ours", ["in git"], indirect=True)
def test_an_experiment_is_kept_in_the_main_repository(ours):
    lock, head = (ours / "dvc.lock").read_bytes(), git("rev-parse", "HEAD")
    with workspace.entered():
        Path("params/starter.yaml").write_text("colour: blue\n")
        dvc("repro", "-q", "draw")
        assert workspace.save_experiment("blue", ["draw"]) is None

    (ref,) = git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/blue").split()
    assert git("show", f"{ref}:params/starter.yaml") == "colour: blue"
    assert (ours / "dvc.lock").read_bytes() == lock
    assert git("rev-parse", "HEAD") == head
    assert git("status", "--porcelain") == ""
    # What was not run is not told to be of these settings.
    assert "look" not in git("diff", f"{head}:dvc.lock", f"{ref}:dvc.lock")
