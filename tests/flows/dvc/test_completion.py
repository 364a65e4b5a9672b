import subprocess
import sys
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from flows import pipeline
from flows.dvc import completion, plan, stages
from tasks.run import paths

# DVC is killed between the end of the training and its line in dvc.lock.
KILLED = """
import os, signal, sys
from pathlib import Path
Path("out/train").write_text(Path("out/draw").read_text() + "by many hours of work")
with open("runs", "a") as runs:
    runs.write("one\\n")
Path(os.environ["ATELIER_RECEIPT"]).touch()
if not Path("let-live").exists():
    os.kill(os.getppid() if len(sys.argv) == 1 else int(sys.argv[1]), signal.SIGKILL)
"""
ASKED = pipeline.Order(force=False, pipeline="p", limit="none")


@pytest.fixture
def finished(repository):
    """A repository whose training finished, and whose DVC was killed before it said so."""
    (repository / "work.py").write_text(KILLED)
    dvc_yaml = repository / "dvc.yaml"
    dvc_yaml.write_text(dvc_yaml.read_text().replace("python work.py", "exec python work.py"))
    _, train = stages.read(["train"])
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "draw"], check=True)
    made_of = plan.look([train])["train"].made_of
    more = completion.expect(train, made_of)
    said = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "-q", "-s", "train"],
        env={**__import__("os").environ, **more},
        check=False,
    )
    assert said.returncode == -9
    (repository / "let-live").touch()
    return train


def bring_up(stage):
    with disable_run_logger():
        return pipeline.run_stage.fn(stage, ASKED, plan.look([stage])[stage.name])


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    import contextlib

    monkeypatch.setattr("flows.infra.gpus.slot", lambda *_: contextlib.nullcontext({}))


def test_a_finished_training_is_committed_and_not_repeated(finished, repository):
    state = bring_up(finished)

    assert state.name == "Committed"
    assert (repository / "runs").read_text() == "one\n"
    assert (repository / "out/train").read_text().endswith("by many hours of work")
    assert bring_up(finished).name == "UpToDate"


def test_one_made_of_something_else_is_repeated(finished, repository):
    (repository / "out/draw").unlink()  # a hard link into DVC's cache, perhaps
    (repository / "out/draw").write_text("another\n")

    assert bring_up(finished).name == "Ran"
    assert (repository / "runs").read_text() == "one\none\n"


def test_one_whose_outs_were_touched_since_is_repeated(finished, repository):
    (repository / "out/train").write_text("edited")
    Path("out/train").touch()

    assert bring_up(finished).name == "Ran"


def test_a_stage_leaves_a_receipt_only_where_it_is_asked_for(tmp_path, monkeypatch):
    from tasks.commands import stage as command

    monkeypatch.delenv(paths.RECEIPT, raising=False)
    command._leave_receipt()
    monkeypatch.setenv(paths.RECEIPT, str(tmp_path / "sft.finished"))
    command._leave_receipt()

    assert [path.name for path in tmp_path.iterdir()] == ["sft.finished"]
