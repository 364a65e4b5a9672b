import dataclasses
import json
import subprocess
import sys

import pytest
import yaml
from prefect.logging import disable_run_logger

from flows import pipeline
from flows.dvc import plan, runner, stages

ASKED = pipeline.Order(force=False, pipeline="pipeline", limit="none")


def test_a_task_is_named_after_what_dvc_did(repository):
    draw = stages.read(["draw"])[0]

    with disable_run_logger():
        states = [
            pipeline.run_stage.fn(draw, ASKED, plan.look([draw])["draw"]) for _ in range(2)
        ]

    assert [state.name for state in states] == ["Ran", "UpToDate"]
    assert all(state.is_completed() for state in states)


def test_no_second_cache_and_no_retry_where_a_person_must_act():
    assert pipeline.run_stage.cache_policy is pipeline.NO_CACHE
    assert pipeline.run_stage.persist_result is False
    mistake = runner.StageFailedError("sft", 255, ["Error: params/starter.yaml does not fit"])
    stopped = runner.StageFailedError("sft", 130, ["Stopped"])
    crash = runner.StageFailedError("sft", 255, ["RuntimeError: CUDA error"])

    def may_help(error):
        return pipeline._may_help(None, None, pipeline.Failed(data=error))

    assert not may_help(mistake)
    assert not may_help(stopped)
    assert may_help(crash)


def test_a_stage_goes_on_while_prefects_server_does_not_answer(repository, monkeypatch):
    tries = []

    def refuse(*words, **named):
        tries.append(words)
        raise ConnectionError("away")

    monkeypatch.setattr(pipeline, "create_progress_artifact", refuse)
    draw, train = stages.read(["train"])
    with disable_run_logger():
        for stage in (draw, train):
            state = pipeline.run_stage.fn(
                stage, dataclasses.replace(ASKED, limit=None), plan.look([stage])[stage.name]
            )

    assert state.name == "Ran"
    assert (repository / "out/train").is_file()
    assert len(tries) == 1  # the stage is not held up by each of its lines


FLOW = """
import json, sys
from prefect.testing.utilities import prefect_test_harness
from prefect.client.orchestration import get_client
from flows.infra import gpus
from flows.reproduce import reproduce

with prefect_test_harness(server_startup_timeout=120):
    limit_name = gpus.ensure_limit()
    states = [reproduce(return_state=True) for _ in range(2)]
    open("break", "w").close()
    states.append(reproduce(targets=["look"], force=True, return_state=True))
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(limit_name)
        runs = sorted((run.name, run.state_name) for run in client.read_task_runs())
        tables = [a for a in client.read_artifacts() if a.key == "stages"]
        bars = [a for a in client.read_artifacts() if a.type == "progress"]
    print(json.dumps({
        "states": [[state.type.value, state.name, state.message] for state in states],
        "limit": [limit.limit, limit.active_slots],
        "runs": runs,
        "tables": len(tables),
        "bars": [[bar.data, bar.description] for bar in bars],
    }))
"""


@pytest.mark.slow
def test_a_flow_run_on_a_real_server(repository):
    said = subprocess.run(
        [sys.executable, "-c", FLOW], capture_output=True, text=True, check=True, timeout=280
    )

    seen = json.loads(said.stdout.splitlines()[-1])
    assert seen["states"][:2] == [
        ["COMPLETED", "Ran", "3 stages are up to date"],
        ["COMPLETED", "UpToDate", "3 stages are up to date"],
    ]
    assert seen["states"][2] == ["FAILED", "Failed", "not up to date: train, look"]
    assert seen["limit"] == [1, 0]  # every slot was given back, also by the failed run
    assert ["train", "Failed"] in seen["runs"]
    assert seen["tables"] == 3
    assert [100.0, "train · train · loss 0.25 · 3 images/s · ETA 0:01"] in seen["bars"]


CHANGED = """
import json
from pathlib import Path
from prefect.testing.utilities import prefect_test_harness
from prefect.client.orchestration import get_client
from flows.dvc.overrides import Changes
from flows.reproduce import reproduce

with prefect_test_harness(server_startup_timeout=120):
    changes = Changes(others={"split.salt": "sea"})
    state = reproduce(["look"], changes=changes, return_state=True)
    after = Path("out/look").read_text()
    with get_client(sync_client=True) as client:
        names = [run.name for run in client.read_flow_runs()]
        (where,) = [a for a in client.read_artifacts() if a.key == "where-to-look"]
    said = {"state": state.name, "after": after, "names": names, "where": where.data}
    print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_changed_run_is_an_experiment_and_leaves_the_working_copy_alone(
    repository, profile, monkeypatch
):
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "a")
        monkeypatch.setenv(f"{name}_EMAIL", "a@b")
    content = yaml.safe_load((repository / "dvc.yaml").read_text())
    content["stages"]["draw"]["params"] = [{"params/${profile}.yaml": ["split.salt"]}]
    content["stages"]["draw"]["cmd"] = (
        "mkdir -p out && grep salt params/starter.yaml > out/draw"
    )
    (repository / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    written = "# by hand\n" + yaml.safe_dump(profile, sort_keys=False)
    (repository / "params/starter.yaml").write_text(written)
    (repository / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (repository / ".gitignore").write_text("/out\n/artifacts\n__pycache__\n")
    run("git", "init", "-q", "-b", "main")
    run(sys.executable, "-m", "dvc", "config", "--unset", "core.no_scm")
    run(sys.executable, "-m", "dvc", "repro", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "All")
    before = (repository / "out/look").read_text()

    said = run(sys.executable, "-c", CHANGED)

    seen = json.loads(said.splitlines()[-1])
    assert (seen["state"], seen["after"]) == ("Ran", before)
    (name,) = seen["names"]
    assert name.startswith("starter: look, split.salt=sea · by ")
    assert "report: " in seen["where"]
    assert run("git", "status", "--porcelain") == ""  # dvc.lock and params/ are as committed
    (ref,) = run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert ref.endswith("/split-salt-sea")
    assert "salt: sea" in run("git", "show", f"{ref}:params/starter.yaml")
    shown = run(sys.executable, "-m", "dvc", "exp", "show", "--csv")
    assert "split-salt-sea" in shown


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
