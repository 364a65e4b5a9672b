"""What is surprising about a night, and where its dvc.lock is committed."""

import json
import subprocess

import pytest

from flows import nights
from tasks.run import paths


def night(**suites):
    paths.SUITES.parent.mkdir(parents=True, exist_ok=True)
    paths.SUITES.write_text(json.dumps(suites))


def test_a_new_champion_a_worse_fid_and_drift_are_surprising(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    night(cpo={"fid": 10.0, "drift": 0.20}, base={"fid": 20.0})
    assert nights.surprises((None, None), 0.05) == []

    night(cpo={"fid": 10.4, "drift": 0.20}, base={"fid": 20.0})
    assert nights.surprises(("models:/t/1", "models:/t/1"), 0.05) == []  # within the slack

    night(cpo={"fid": 12.0, "drift": 0.30}, new={"fid": 99.0})
    assert nights.surprises(("models:/t/1", "models:/t/2"), 0.05) == [
        "the champion is models:/t/2, and was models:/t/1",
        "FID of cpo is 12.00, and was 10.40",
        "drift of cpo is 0.30, and was 0.20",
    ]


def git(*words):
    said = subprocess.run(["git", *words], check=True, capture_output=True, text=True)
    return said.stdout.strip()


@pytest.fixture
def committed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "a")
        monkeypatch.setenv(f"{name}_EMAIL", "a@b")
    git("init", "-q", "-b", "main")
    for name in ("dvc.lock", "code.py"):
        (tmp_path / name).write_text("old\n")
    git("add", "-A")
    git("commit", "-qm", "All")
    return tmp_path


def test_a_nights_lock_is_committed_on_its_own_branch_and_nothing_else_moves(committed):
    assert nights.commit() == "dvc.lock is as it was committed"
    head = git("rev-parse", "HEAD")
    for content in ("one\n", "two\n"):
        (committed / "dvc.lock").write_text(content)
        assert nights.commit().startswith("dvc.lock is committed on branch nightly")
        assert nights.commit() == "dvc.lock is as it was committed"

    assert git("show", "nightly:dvc.lock") == "two"
    assert git("show", "nightly^2:dvc.lock") == "one"
    assert git("rev-parse", "nightly^1") == head == git("rev-parse", "HEAD")
    assert git("status", "--porcelain") == "M dvc.lock"
    git("checkout", "-q", "--", ".")
    git("merge", "-q", "nightly")
    assert (committed / "dvc.lock").read_text() == "two\n"


def test_the_results_of_uncommitted_code_are_not_committed(committed, tmp_path_factory):
    (committed / "dvc.lock").write_text("one\n")
    (committed / "code.py").write_text("new\n")

    assert "its code is not, either:\nM code.py" in nights.commit()
    assert git("branch", "--list", "nightly") == ""


def test_outside_of_git_it_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert (
        nights.commit() == "dvc.lock is not committed: this is no git repository with a commit"
    )
