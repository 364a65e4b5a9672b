import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from atelier.config.profile import read_profile
from tasks.run import paths
from tasks.tracking import connection, mlflow_runs, registry, sync

WAITING = """
import time
from tasks.commands.stage import checked_profile
from tasks.run import operator_errors
from tasks.tracking import mlflow_runs

with operator_errors.shown(), mlflow_runs.stage("cpo", checked_profile()) as run:
    run.metrics({"loss": 1.0}, step=1)
    print("started", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def checked(mlflow_folder):
    return read_profile(paths.profile("starter"))


@pytest.fixture
def runs(workspace):
    """A function that returns the runs of MLflow by name; the parent's is ``parent``."""

    def runs():
        mlflow = connection.client()
        found = mlflow.search_runs([connection.experiment(mlflow, "starter")])
        return {run.data.tags.get("stage", "parent"): run for run in found}

    return runs


def waiting():
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    return process


def test_stages_of_one_pipeline_are_children_of_one_run(checked, runs, monkeypatch):
    monkeypatch.setenv("ATELIER_PIPELINE", "prefect/one")
    for name in ("sft", "cpo"):
        with mlflow_runs.stage(name, checked):
            pass

    found = runs()

    assert found.keys() == {"parent", "sft", "cpo"}
    parent = found["parent"].info.run_id
    assert {found[n].data.tags["mlflow.parentRunId"] for n in ("sft", "cpo")} == {parent}
    assert found["parent"].data.params["cpo.lora.rank"] == "4"
    assert found["cpo"].data.params["lora.rank"] == "4"
    assert found["cpo"].data.params["model.family"] == "flux"
    assert found["cpo"].data.tags["profile"] == "starter"
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_a_studys_pipeline_runs_are_children_of_its_own_run(checked, workspace, monkeypatch):
    key, said = "study/abc", []
    with mlflow_runs.study(
        key, {"seeds": [0, 1], "sweep": {"field": "omega"}}, said.append
    ) as of:
        with monkeypatch.context() as patch:
            patch.setenv("ATELIER_STUDY", key)
            patch.setenv("ATELIER_PIPELINE", f"{key}/methods-0")
            for name in ("sft", "cpo"):
                with mlflow_runs.stage(name, checked):
                    pass
            registry.run(evaluating=True)
        of.tags({"chosen.dpo, guided": "2"})  # MLflow refuses the comma
        of.metrics({"negatives/dpo": 1.5}, 1)
        of.file(paths.SWITCH)

    mlflow = connection.client()
    found = mlflow.search_runs([connection.experiment(mlflow, "study")])
    runs = {run.data.tags["mlflow.runName"]: run for run in found}
    assert said == []
    assert runs.keys() == {"study", "methods-0", "sft", "cpo"}
    above = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    ids = {name: run.info.run_id for name, run in runs.items()}
    assert above == {
        "study": None,
        "methods-0": ids["study"],
        "sft": ids["methods-0"],
        "cpo": ids["methods-0"],
    }
    assert {run.info.status for run in found} == {"FINISHED"}
    whole = runs["study"].data
    assert (whole.tags["seeds"], whole.tags["chosen.dpo guided"]) == ("[0, 1]", "2")
    assert whole.params["sweep.field"] == "omega"
    assert whole.metrics == {"negatives/dpo": 1.5}
    assert [file.path for file in mlflow.list_artifacts(ids["study"])] == ["profile.yaml"]
    assert not mlflow.search_registered_models()  # the registry follows our own dvc.lock


def test_a_study_that_is_run_again_goes_on_under_its_run(checked):
    for _ in range(2):
        with mlflow_runs.study("study/abc", {"seeds": [0]}, print) as of:
            of.metrics({"fid/dpo": 9.0}, 1)

    mlflow = connection.client()
    (run,) = mlflow.search_runs([connection.experiment(mlflow, "study")])
    assert run.data.metrics == {"fid/dpo": 9.0}
    assert run.info.status == "FINISHED"


def test_curves_results_pictures_and_files(checked, runs, workspace):
    (workspace / "curve.tsv").write_text("step\tloss\n")
    with mlflow_runs.stage("sft", checked) as run:
        for step in (1, 2):
            run.metrics({"loss": 1 / step, "drift": float("nan")}, step)
        run.metrics({"#A_neg": 3.5, "loss": 0.5})
        run.picture("grid", Image.new("RGB", (8, 8)), step=2)
        run.picture("last", Image.new("RGB", (8, 8)))
        run.file(workspace / "curve.tsv")

    found, mlflow = runs(), connection.client()

    sft = found["sft"].info.run_id
    curve = mlflow.get_metric_history(sft, "loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5), (2, 0.5)]
    assert found["sft"].data.metrics == {"loss": 0.5, "A_neg": 3.5}
    assert found["parent"].data.metrics == {"sft.A_neg": 3.5, "sft.loss": 0.5}
    files = {entry.path for entry in mlflow.list_artifacts(sft)}
    assert files == {"images", "last.png", "curve.tsv"}
    location = found["sft"].info.artifact_uri
    assert location.startswith((workspace / "artifacts/mlflow/artifacts").as_uri())


def test_a_trainings_run_is_opened_beside_its_first_steps(checked, runs, monkeypatch):
    asked, go_on = threading.Event(), threading.Event()
    client = connection.client

    def slow(**words):
        asked.set()
        assert go_on.wait(20)
        return client(**words)

    with mlflow_runs.stage("cpo", checked, later=True) as run, monkeypatch.context() as patch:
        patch.setattr(connection, "client", slow)
        with run.part("dpo", {"beta": 1}, paths.CPO / "dpo") as own:
            own.begin(beside=True)
            assert asked.wait(20)  # and the steps go on meanwhile
            go_on.set()
            own.metrics({"loss": 1.0}, step=1)

    found = connection.client().search_runs(
        [connection.experiment(connection.client(), "starter")]
    )
    names = {one.data.tags["mlflow.runName"]: one for one in found}
    assert names["dpo"].data.metrics == {"loss": 1.0}
    assert names["dpo"].data.tags["mlflow.parentRunId"] == names["cpo"].info.run_id
    assert {one.info.status for one in found} == {"FINISHED"}
    # the run began as its stage did, not as it was opened
    assert names["cpo"].info.start_time <= names["dpo"].info.start_time


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_ends_as_its_stage_does(checked, runs, error, status):
    with pytest.raises(error), mlflow_runs.stage("sft", checked):
        raise error

    assert {name: run.info.status for name, run in runs().items()} == {
        "sft": status,
        "parent": status,
    }


def test_a_run_told_to_stop_is_killed(checked, runs):
    process = waiting()
    process.send_signal(signal.SIGTERM)

    with process:
        assert process.wait(20) == 128 + signal.SIGTERM
    assert runs()["cpo"].info.status == "KILLED"


def test_a_run_whose_process_is_gone_is_ended_by_the_next(checked, runs):
    process = waiting()
    process.kill()
    with process:
        process.wait(20)
    assert runs()["cpo"].info.status == "RUNNING"

    with mlflow_runs.stage("sft", checked):
        pass

    assert runs()["cpo"].info.status == "KILLED"


KILLED_BETWEEN = """
import os, signal
from tasks.commands.stage import checked_profile
from tasks.tracking import mlflow_runs, sync

# The pipeline's run is made, the stage's own is not.
sync.log_params = lambda *words: os.kill(os.getpid(), signal.SIGKILL)
with mlflow_runs.stage("cpo", checked_profile()):
    pass
"""


def test_a_pipeline_killed_before_its_first_stage_has_a_run_is_ended_by_the_next(checked, runs):
    done = subprocess.run([sys.executable, "-c", KILLED_BETWEEN], check=False)
    assert done.returncode == -signal.SIGKILL
    (parent,) = runs().values()
    assert parent.info.status == "RUNNING"

    with mlflow_runs.stage("sft", checked):
        pass

    mlflow = connection.client()
    assert mlflow.get_run(parent.info.run_id).info.status == "KILLED"
    assert runs()["sft"].info.status == "FINISHED"


def test_a_pipelines_run_lives_while_a_stage_of_it_does(checked, runs, monkeypatch):
    monkeypatch.setenv("ATELIER_PIPELINE", "prefect/one")
    first, second = waiting(), waiting()
    first.kill()
    with first:
        first.wait(20)
    with mlflow_runs.stage("sft", checked) as run:
        run.begin()
        parent = runs()["sft"].data.tags["mlflow.parentRunId"]
        assert connection.client().get_run(parent).info.status == "RUNNING"
    second.kill()
    with second:
        second.wait(20)


def test_a_run_says_its_data_and_how_busy_the_machine_was(checked, runs, monkeypatch):
    monkeypatch.setattr(mlflow_runs, "_SECONDS_BETWEEN_LOOKS", 0.1)
    paths.DATA_PIN.write_text("outs:\n- md5: abc.dir\n  path: data\n")
    with mlflow_runs.stage("sft", checked) as run:
        run.begin()
        time.sleep(1)

    sft = runs()["sft"]
    (given,) = sft.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("data", "abc")
    assert sft.data.metrics["system/cpu_utilization_percentage"] >= 0


def test_where_a_run_comes_from(workspace, monkeypatch):
    def git(*words):
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert mlflow_runs.provenance() == {}
    git("init", "-q")
    paths.JUDGED_BY.parent.mkdir(parents=True)
    shutil.copy(paths.CRITERIA / "starter.yaml", paths.JUDGED_BY)
    (workspace / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    git("add", ".")
    git("commit", "-qm", "All")
    clean = mlflow_runs.provenance()
    (workspace / "dvc.lock").touch()
    (workspace / "params/starter.yaml").write_text("")

    assert clean == {
        "mlflow.source.git.commit": git("rev-parse", "HEAD"),
        "git.dirty": "false",
        "dvc.data": "abc.dir",
        "criteria": "painting 1",
    }
    assert mlflow_runs.provenance()["git.dirty"] == "true"


def test_all_stages_of_one_dvc_process_know_each_other(workspace):
    code = "from tasks.tracking import mlflow_runs; print(mlflow_runs.pipeline()[0])"
    say = f"{sys.executable} -c '{code}'"
    (workspace / "dvc.yaml").write_text(
        f'stages:\n  a: {{cmd: "{say} > a", outs: [a]}}\n'
        f'  b: {{cmd: "{say} > b", deps: [a], outs: [b]}}\n'
    )
    for words in (["init", "-q", "--no-scm"], ["repro", "-q"]):
        subprocess.run(
            [sys.executable, "-m", "dvc", *words],
            env=os.environ | {"DVC_NO_ANALYTICS": "1"},
            check=True,
        )

    assert (workspace / "a").read_text() == (workspace / "b").read_text()


def test_the_command_that_opens_the_pages_is_short_and_quiet(workspace, monkeypatch):
    assert connection.ui_command().endswith(
        "-m mlflow ui --backend-store-uri sqlite:///artifacts/mlflow/mlflow.db --port 5000"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.studio:5000")
    assert connection.ui_command() == "xdg-open http://mlflow.studio:5000"


@pytest.mark.parametrize("host", ["127.0.0.1:9", "mlflow.studio"])
def test_a_password_in_a_servers_address_is_shown_to_nobody(workspace, monkeypatch, host):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "before")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "before")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:s%40cret@{host}/runs")

    assert connection.tracking_uri() == f"http://{host}/runs"
    assert connection.ui_command() == f"xdg-open http://{host}/runs"
    assert os.environ["MLFLOW_TRACKING_URI"] == f"http://{host}/runs"  # stages inherit it
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "ann"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "s@cret"


def test_the_password_of_a_database_is_shown_to_nobody(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://ann:s@cret@db:1/mlflow")

    assert "postgresql+psycopg2://…@db:1/mlflow" in connection.ui_command()
    assert connection.without_password("a https://a:b@c/d?e@f g@h") == "a https://…@c/d?e@f g@h"


def test_each_part_of_a_stage_has_a_run_with_its_own_settings_and_weights(checked, runs):
    with mlflow_runs.stage("cpo", checked) as run:
        for name, omega in (("cpo-s", 4.0), ("cpo", None)):
            folder = paths.CPO / name
            with run.part(name, {"objective": {"omega": omega}, "seed": 1}, folder) as own:
                own.metrics({"loss": 0.5}, 1)
                own.metrics({"drift": 0.25})
                folder.mkdir(parents=True)
                (folder / "weights.safetensors").write_text(name)
        run.metrics({"cpo-s/drift": 0.25})

    found = runs()
    mlflow, stage = connection.client(), found["cpo"].info.run_id
    below = mlflow.search_runs(
        [found["cpo"].info.experiment_id], f"tags.`mlflow.parentRunId` = '{stage}'"
    )
    parts = {one.data.tags["objective"]: one for one in below}
    assert parts.keys() == {"cpo-s", "cpo"}
    own = parts["cpo-s"]
    assert own.info.run_name == "cpo-s"
    assert own.info.status == "FINISHED"
    assert own.data.params == {"objective.omega": "4.0", "seed": "1"}
    assert own.data.metrics == {"loss": 0.5, "drift": 0.25}
    assert "stage" not in own.data.tags
    assert own.data.tags["profile"] == "starter"
    md5 = {
        n: one.data.tags[f"out.artifacts/cpo/{n}/weights.safetensors"]
        for n, one in parts.items()
    }
    assert len(set(md5.values())) == 2
    assert not any(tag.startswith("out.") for tag in found["cpo"].data.tags)
    assert found["parent"].data.metrics == {"cpo.cpo-s/drift": 0.25}


def test_a_part_ends_as_its_training_does(checked, runs):
    with (
        pytest.raises(KeyboardInterrupt),
        mlflow_runs.stage("cpo", checked) as run,
        run.part("cpo-s", {}, paths.CPO / "cpo-s"),
    ):
        raise KeyboardInterrupt

    client = connection.client()
    every = client.search_runs([connection.experiment(client, "starter")])
    assert [one.info.status for one in every] == ["KILLED"] * 3


def test_a_run_that_was_not_begun_logs_nothing(workspace):
    run = mlflow_runs.StageRun()

    run.metrics({"loss": 1.0}, 1)
    run.picture("grid", Image.new("RGB", (8, 8)), step=1)
    with run.part("cpo-s", {}, paths.CPO) as own:
        own.tags({"why": "none"})

    assert not paths.MLFLOW.exists()


def test_what_cannot_be_logged_stops_nothing_and_is_said_once(checked, runs, workspace, caplog):
    with caplog.at_level(logging.WARNING), mlflow_runs.stage("sft", checked) as run:
        run.file(workspace / "absent.txt")
        run.file(workspace / "absent too.txt")
        run.metrics({"loss": 1.0}, 1)

    said = [r.message for r in caplog.records if r.name == "tasks.tracking.mlflow_runs"]
    assert len(said) == 1
    assert "absent.txt" in said[0]
    assert runs()["sft"].data.metrics == {"loss": 1.0}


def test_a_pipelines_run_that_was_made_but_not_described_is_described_later(
    checked, runs, monkeypatch
):
    monkeypatch.setenv("ATELIER_PIPELINE", "prefect/one")
    with monkeypatch.context() as broken:
        broken.setattr(sync, "log_params", lambda *words: 1 / 0)
        with mlflow_runs.stage("sft", checked):
            pass
    with mlflow_runs.stage("cpo", checked):
        pass

    found = runs()
    assert found.keys() == {"parent", "cpo"}
    assert found["parent"].data.params.keys() == mlflow_runs.flat(checked.model_dump()).keys()
