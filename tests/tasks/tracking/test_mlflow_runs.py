import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from atelier.config.profile import read_profile
from tasks.run import paths
from tasks.tracking import mlflow_runs, outbox, registry

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
        mlflow = mlflow_runs.client()
        found = mlflow.search_runs([mlflow_runs.experiment(mlflow, "starter")])
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
        of.tags({"chosen.dpo": "2"})
        of.metrics({"negatives/dpo": 1.5}, done=1)
        of.file(paths.SWITCH)

    mlflow = mlflow_runs.client()
    found = mlflow.search_runs([mlflow_runs.experiment(mlflow, "study")])
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
    assert (whole.tags["seeds"], whole.tags["chosen.dpo"]) == ("[0, 1]", "2")
    assert whole.params["sweep.field"] == "omega"
    assert whole.metrics == {"negatives/dpo": 1.5}
    assert [file.path for file in mlflow.list_artifacts(ids["study"])] == ["profile.yaml"]
    assert not mlflow.search_registered_models()  # the registry follows our own dvc.lock


def test_a_study_goes_on_where_mlflow_is_away_and_under_its_run_when_it_is_back(
    checked, monkeypatch
):
    said = []
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with mlflow_runs.study("study/abc", {"seeds": [0]}, said.append) as of:
            of.metrics({"fid/dpo": 9.0}, done=1)
    assert len(said) == 1
    assert "did not answer" in said[0]

    for _ in range(2):
        with mlflow_runs.study("study/abc", {"seeds": [0]}, said.append) as of:
            of.metrics({"fid/dpo": 9.0}, done=1)

    mlflow = mlflow_runs.client()
    (run,) = mlflow.search_runs([mlflow_runs.experiment(mlflow, "study")])
    assert run.data.metrics == {"fid/dpo": 9.0}
    assert len(said) == 1


def test_curves_results_pictures_and_files(checked, runs, workspace):
    (workspace / "curve.tsv").write_text("step\tloss\n")
    with mlflow_runs.stage("sft", checked) as run:
        for step in (1, 2):
            run.metrics({"loss": 1 / step, "drift": float("nan")}, step)
        run.metrics({"#A_neg": 3.5, "loss": 0.5})
        run.picture("grid", Image.new("RGB", (8, 8)), step=2)
        run.picture("last", Image.new("RGB", (8, 8)))
        run.file(workspace / "curve.tsv")

    found, mlflow = runs(), mlflow_runs.client()

    sft = found["sft"].info.run_id
    curve = mlflow.get_metric_history(sft, "loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5), (2, 0.5)]
    assert found["sft"].data.metrics == {"loss": 0.5, "A_neg": 3.5}
    assert found["parent"].data.metrics == {"sft.A_neg": 3.5, "sft.loss": 0.5}
    files = {entry.path for entry in mlflow.list_artifacts(sft)}
    assert files == {"images", "last.png", "curve.tsv"}
    location = found["sft"].info.artifact_uri
    assert location.startswith((workspace / "artifacts/mlflow/artifacts").as_uri())


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
from tasks.tracking import mlflow_runs

# The pipeline's run is made, the stage's own is not.
mlflow_runs._params = lambda *words: os.kill(os.getpid(), signal.SIGKILL)
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

    mlflow = mlflow_runs.client()
    assert mlflow.get_run(parent.info.run_id).info.status == "KILLED"
    assert runs()["sft"].info.status == "FINISHED"


def test_a_pipelines_run_lives_while_a_stage_of_it_does(checked, runs, monkeypatch):
    monkeypatch.setenv("ATELIER_PIPELINE", "prefect/one")
    first, second = waiting(), waiting()
    first.kill()
    with first:
        first.wait(20)
    with mlflow_runs.stage("sft", checked):
        parent = runs()["sft"].data.tags["mlflow.parentRunId"]
        assert mlflow_runs.client().get_run(parent).info.status == "RUNNING"
    second.kill()
    with second:
        second.wait(20)


AWAY = "http://127.0.0.1:9"


def say_much(run, workspace):
    """What a stage says: a curve, a result, pictures, a file that changes afterwards."""
    for step in (1, 2):
        run.metrics({"loss": 1 / step}, step)
    run.metrics({"#A_neg": 3.5})
    run.picture("grid", Image.new("RGB", (8, 8)), step=2)
    (workspace / "curve.tsv").write_text("as it was")
    run.file(workspace / "curve.tsv")
    (workspace / "curve.tsv").write_text("changed since")


def logged(runs):
    """What MLflow has of the run `sft`."""
    mlflow, sft = mlflow_runs.client(), runs()["sft"]
    run = sft.info.run_id
    files = [entry.path for entry in mlflow.list_artifacts(run)]
    return {
        "curve": [(p.step, p.value) for p in mlflow.get_metric_history(run, "loss")],
        "result": sft.data.metrics["A_neg"],
        "files": sorted(files),
        "text": Path(mlflow.download_artifacts(run, "curve.tsv")).read_text(),
        "pictures": len(mlflow.list_artifacts(run, "images")),
        "status": sft.info.status,
        "params": sft.data.params["lora.rank"],
    }


EVERYTHING = {
    "curve": [(1, 1.0), (2, 0.5)],
    "result": 3.5,
    "files": ["curve.tsv", "images"],
    "text": "as it was",
    "pictures": 2,  # and its thumbnail
    "status": "FINISHED",
    "params": "4",
}


def test_mlflow_away_is_said_once_and_nothing_is_lost(
    checked, runs, workspace, monkeypatch, caplog
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    began = time.time() * 1000
    with caplog.at_level(logging.WARNING), mlflow_runs.stage("sft", checked) as run:
        say_much(run, workspace)
    ended = time.time() * 1000
    said = [
        record.message
        for record in caplog.records
        if record.name == "tasks.tracking.mlflow_runs"
    ]
    assert len(said) == 1
    assert said[0].startswith("MLflow at http://127.0.0.1:9 did not answer")
    assert len(outbox.waiting()) == 1

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with mlflow_runs.stage("cpo", checked):
        pass

    assert logged(runs) == EVERYTHING
    assert outbox.waiting() == []
    info = runs()["sft"].info
    assert began <= info.start_time <= info.end_time <= ended


def test_mlflow_away_from_the_middle_on(checked, runs, workspace, monkeypatch, caplog):
    with mlflow_runs.stage("sft", checked) as run:
        run.metrics({"loss": 1.0}, 1)
        with monkeypatch.context() as broken:
            broken.setattr(type(run._open), "_log", refuse)
            run.metrics({"loss": 0.5}, 2)
        run.metrics({"#A_neg": 3.5})

    mlflow, found = mlflow_runs.client(), runs()
    assert found.keys() == {"parent", "sft"}  # one run, not two halves
    history = mlflow.get_metric_history(found["sft"].info.run_id, "loss")
    assert [(p.step, p.value) for p in history] == [(1, 1.0), (2, 0.5)]
    assert found["sft"].data.metrics["A_neg"] == 3.5
    assert outbox.waiting() == []


def refuse(*_, **__):
    raise ConnectionError("away")


def test_a_delivery_that_is_cut_goes_on_where_it_was(
    checked, runs, workspace, monkeypatch, caplog
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    with mlflow_runs.stage("sft", checked) as run:
        say_much(run, workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with monkeypatch.context() as broken:
        broken.setattr(mlflow_runs._Runs, "file", refuse)
        with pytest.raises(ConnectionError):
            mlflow_runs.deliver()

    assert mlflow_runs.deliver() == 1

    assert logged(runs) == EVERYTHING
    assert list(runs()) == ["sft", "parent"] or list(runs()) == ["parent", "sft"]


def test_one_that_was_killed_while_mlflow_was_away_is_delivered_as_killed(
    checked, runs, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    process = waiting()
    assert mlflow_runs.deliver() == 0  # it still writes
    process.kill()
    with process:
        process.wait(20)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")

    assert mlflow_runs.deliver() == 1

    assert runs()["cpo"].info.status == "KILLED"
    assert runs()["cpo"].data.metrics == {"loss": 1.0}


def test_what_cannot_be_told_at_all_stops_nothing(checked, runs, workspace, caplog):
    with caplog.at_level(logging.WARNING), mlflow_runs.stage("sft", checked) as run:
        run.file(workspace / "absent.txt")
        run.metrics({"loss": 1.0}, 1)

    said = [r.name for r in caplog.records if r.levelno >= logging.WARNING]
    assert said == ["tasks.tracking.mlflow_runs"]
    assert runs()["sft"].data.metrics == {"loss": 1.0}


def test_a_run_says_its_data_and_how_busy_the_machine_was(checked, runs, monkeypatch):
    monkeypatch.setattr(mlflow_runs, "_SECONDS_BETWEEN_LOOKS", 0.1)
    paths.DATA_PIN.write_text("outs:\n- md5: abc.dir\n  path: data\n")
    with mlflow_runs.stage("sft", checked):
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
    code = "from tasks.tracking import mlflow_runs; print(mlflow_runs._pipeline())"
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
    assert mlflow_runs.ui_command().endswith(
        "-m mlflow ui --backend-store-uri sqlite:///artifacts/mlflow/mlflow.db --port 5000"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.studio:5000")
    assert mlflow_runs.ui_command() == "xdg-open http://mlflow.studio:5000"


@pytest.mark.parametrize("host", ["127.0.0.1:9", "mlflow.studio"])
def test_a_password_in_a_servers_address_is_shown_to_nobody(workspace, monkeypatch, host):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "before")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "before")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:s%40cret@{host}/runs")

    assert mlflow_runs.tracking_uri() == f"http://{host}/runs"
    assert mlflow_runs.ui_command() == f"xdg-open http://{host}/runs"
    assert os.environ["MLFLOW_TRACKING_URI"] == f"http://{host}/runs"  # stages inherit it
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "ann"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "s@cret"


def test_a_study_without_its_database_says_so_without_the_password(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:marked-secret@127.0.0.1:9/runs")
    said = []

    with mlflow_runs.study("study/abc", {"seeds": [0]}, said.append):
        pass

    assert "postgresql://…@127.0.0.1:9/runs did not answer" in said[0]
    assert "marked-secret" not in said[0]


def test_the_password_of_a_database_is_shown_to_nobody(workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://ann:s@cret@db:1/mlflow")

    assert "postgresql+psycopg2://…@db:1/mlflow" in mlflow_runs.ui_command()
    assert (
        mlflow_runs.without_password("a https://a:b@c/d?e@f g@h") == "a https://…@c/d?e@f g@h"
    )


def and_is_lost(method):
    """Do what is asked, and break before anybody hears of it."""

    def done(*words, **named):
        method(*words, **named)
        raise ConnectionError("the answer was lost")

    return done


def test_what_arrived_although_its_answer_was_lost_is_there_once(
    checked, runs, workspace, monkeypatch
):
    with monkeypatch.context() as broken, mlflow_runs.stage("sft", checked) as run:
        broken.setattr(mlflow_runs._Runs, "_log", and_is_lost(mlflow_runs._Runs._log))
        say_much(run, workspace)
        broken.undo()


@pytest.mark.parametrize("arrived", [1, 2])
def test_a_picture_of_which_a_part_arrived_is_there_once(checked, runs, monkeypatch, arrived):
    import mlflow

    sent, send = [], mlflow.MlflowClient.log_artifact

    def some(*words):
        send(*words)
        sent.append(words)
        if len(sent) == arrived:
            raise ConnectionError("the answer was lost")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", some)
    with mlflow_runs.stage("cpo", checked) as run:
        run.picture("grid/a", Image.new("RGB", (8, 8)), step=3)

    client, ident = mlflow_runs.client(), runs()["cpo"].info.run_id
    assert len(sent) == arrived + 2
    assert len(client.list_artifacts(ident, "images")) == 2  # and its thumbnail
    assert runs()["cpo"].data.tags["mlflow.loggedImages"] == "True"


def test_pictures_are_named_as_mlflows_pages_expect(checked, runs):
    picture = Image.new("RGB", (600, 300))
    with mlflow_runs.stage("cpo", checked) as run:
        run.picture("grid/a", picture, step=3)
        client, ident = mlflow_runs.client(), runs()["cpo"].info.run_id
        client.log_image(ident, picture, key="grid/a", step=3, synchronous=True)

    names = [entry.path for entry in client.list_artifacts(ident, "images")]
    plain = [re.sub(r"[0-9a-f]{8}-[-0-9a-f]{27}|timestamp.\d+", "…", name) for name in names]
    assert len(names) == 4
    assert len(set(names)) == 4
    assert len(set(plain)) == 2


def test_a_pipelines_run_that_was_made_but_not_described_is_described_later(
    checked, runs, monkeypatch
):
    import mlflow

    made = []

    def refuse_first(log):
        def params(*words, **named):
            made.append(words)
            if len(made) == 1:
                raise ConnectionError("away")
            return log(*words, **named)

        return params

    monkeypatch.setattr(
        mlflow.MlflowClient, "log_batch", refuse_first(mlflow.MlflowClient.log_batch)
    )
    with mlflow_runs.stage("sft", checked):
        pass

    parent = runs()["parent"].data.params
    assert parent["cpo.training.steps"] == str(checked.cpo.training.steps)
    assert parent.keys() == mlflow_runs.flat(checked.model_dump()).keys()


def test_a_run_whose_making_was_not_heard_of_is_found_again(checked, runs, monkeypatch):
    import mlflow

    with monkeypatch.context() as broken:
        create = mlflow.MlflowClient.create_run
        broken.setattr(mlflow.MlflowClient, "create_run", and_is_lost(create))
        with mlflow_runs.stage("sft", checked) as run:
            run.metrics({"loss": 1.0}, 1)
    assert mlflow_runs.deliver() in {0, 1}

    client = mlflow_runs.client()
    every = client.search_runs([mlflow_runs.experiment(client, "starter")])
    assert sorted(one.data.tags.get("stage", "parent") for one in every) == ["parent", "sft"]
    assert {one.info.status for one in every} == {"FINISHED"}
    assert runs()["sft"].data.metrics == {"loss": 1.0}


def test_a_run_that_the_client_made_twice_is_one(checked, runs, monkeypatch):
    import mlflow

    create = mlflow.MlflowClient.create_run

    def twice(*words, **named):
        create(*words, **named)
        return create(*words, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", twice)
    with mlflow_runs.stage("sft", checked):
        pass

    client = mlflow_runs.client()
    every = client.search_runs([mlflow_runs.experiment(client, "starter")])
    assert sorted(one.data.tags.get("stage", "parent") for one in every) == ["parent", "sft"]
    assert {one.info.status for one in every} == {"FINISHED"}


def test_a_result_stands_at_the_last_step_also_if_it_was_kept(checked, runs, monkeypatch):
    with mlflow_runs.stage("sft", checked) as run:
        run.metrics({"loss": 1.0}, 7)
        with monkeypatch.context() as broken:
            broken.setattr(mlflow_runs._Runs, "_log", refuse)
            run.metrics({"loss": 0.5})

    history = mlflow_runs.client().get_metric_history(runs()["sft"].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(7, 1.0), (7, 0.5)]


def test_a_server_that_trickles_is_given_up(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    over = threading.Event()
    with pytest.raises(TimeoutError, match=r"no whole answer within 0\.01 s"):
        mlflow_runs.bounded(lambda: over.wait(60), 0.01)
    over.set()

    assert mlflow_runs.bounded(lambda: 3, 10) == 3
    with pytest.raises(ConnectionError):
        mlflow_runs.bounded(refuse, 10)


def test_points_that_take_long_are_kept_for_later(checked, runs, monkeypatch):
    monkeypatch.setattr(mlflow_runs, "_POINT_SECONDS", 0.0)
    told = []
    with mlflow_runs.stage("sft", checked) as run:
        monkeypatch.setattr(mlflow_runs._Runs, "metrics", lambda *words: told.append(words))
        for step in (1, 2, 3):
            run.metrics({"loss": 1 / step}, step)

    assert len(told) == 1  # the first took longer than nothing
    history = mlflow_runs.client().get_metric_history(runs()["sft"].info.run_id, "loss")
    assert [point.step for point in history] == [2, 3]


def test_a_slow_delivery_goes_on_another_time(checked, runs, workspace, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    with mlflow_runs.stage("sft", checked) as run:
        say_much(run, workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with monkeypatch.context() as slow:
        slow.setattr(mlflow_runs, "_DELIVERY_SECONDS", 0.0)
        with pytest.raises(TimeoutError, match="is delivered in part"):
            mlflow_runs.deliver()
    assert len(outbox.waiting()) == 1

    assert mlflow_runs.deliver() == 1

    assert logged(runs) == EVERYTHING


def test_points_are_delivered_many_at_once(checked, runs, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    with mlflow_runs.stage("sft", checked) as run:
        for step in range(1, 1201):
            run.metrics({"loss": 1 / step}, step)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    sent, log = [], mlflow_runs._Runs._log
    monkeypatch.setattr(
        mlflow_runs._Runs,
        "_log",
        lambda self, run, points: (sent.append(len(points)), log(self, run, points)),
    )

    mlflow_runs.deliver()

    assert sum(sent) == 1200
    assert len(sent) == 3
    history = mlflow_runs.client().get_metric_history(runs()["sft"].info.run_id, "loss")
    assert [point.step for point in history] == list(range(1, 1201))


def test_a_delivery_killed_behind_the_end_leaves_the_run_as_it_ended(
    checked, runs, workspace, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    with mlflow_runs.stage("sft", checked) as run:
        say_much(run, workspace)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with monkeypatch.context() as killed:
        killed.setattr(outbox, "remove", refuse)
        with pytest.raises(ConnectionError):
            mlflow_runs.deliver()

    assert mlflow_runs.deliver() == 1

    assert runs()["sft"].info.status == "FINISHED"
    assert logged(runs) == EVERYTHING
