import contextlib
import functools
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from atelier.config.profile import read_profile
from tasks.run import paths
from tasks.tracking import connection, mlflow_runs, sync

WAITING = """
import time
from tasks.commands.stage import checked_profile
from tasks.tracking import mlflow_runs

with mlflow_runs.stage("cpo", checked_profile()) as run:
    run.metrics({"loss": 1.0}, step=1)
    print("started", flush=True)
    time.sleep(300)
"""


class Silent:
    """Stands where the process beside a stage would: nothing is copied meanwhile."""

    def finish(self, *, stopped):
        return True


@pytest.fixture
def checked(mlflow_folder):
    return read_profile(paths.profile("starter"))


@pytest.fixture
def server(checked, mlflow_tables, tmp_path, monkeypatch):
    """A second file in the place of a server, to which runs are copied when a test says so."""
    shutil.copy(mlflow_tables, tmp_path / "server.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/server.db")
    monkeypatch.setattr(connection, "is_away", lambda: True)
    monkeypatch.setattr(sync, "Process", Silent)
    return tmp_path


def say_much(run, workspace):
    """What a stage says: a curve, results, pictures, a file that changes afterwards."""
    for step in (1, 2):
        run.metrics({"loss": 1 / step}, step)
    run.metrics({"#A_neg": 3.5, "loss": 0.5})
    run.picture("grid/a", Image.new("RGB", (8, 8)), step=2)
    run.tags({"unavailable.fid": "no weights"})
    (workspace / "curve.tsv").write_text("as it was")
    run.file(workspace / "curve.tsv")
    (workspace / "curve.tsv").write_text("changed since")
    with run.part("cpo-s", {"omega": 4.0}, paths.CPO / "cpo-s") as own:
        own.metrics({"loss": 0.25}, 1)


def everything(*, here):
    """All that a store has, by names that are the same in both."""
    client = connection.client(here=here)
    runs = client.search_runs([connection.experiment(client, "starter")])
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(names) == len(set(names.values()))
    found = {}
    for run in runs:
        ident, tags = run.info.run_id, dict(run.data.tags)
        tags.pop("atelier.run", None)
        above = tags.pop("mlflow.parentRunId", None)
        history = {
            key: [(p.step, p.value, p.timestamp) for p in client.get_metric_history(ident, key)]
            for key in run.data.metrics
        }
        files = [entry.path for entry in client.list_artifacts(ident)]
        files += [entry.path for entry in client.list_artifacts(ident, "images")]
        inputs = [one.dataset.digest for one in run.inputs.dataset_inputs]
        found[run.info.run_name] = (
            names.get(above), tags, run.data.params, history, sorted(files), inputs,
            run.info.status, run.info.start_time, run.info.end_time,
        )  # fmt: skip
    return found


def test_all_of_a_run_arrives_and_once(server, checked, workspace):
    paths.DATA_PIN.write_text("outs:\n- md5: abc.dir\n  path: data\n")
    with mlflow_runs.stage("sft", checked) as run:
        say_much(run, workspace)
    assert len(sync.waiting()) == 3  # the pipeline's, the stage's, and its part's

    assert sync.deliver() == 3

    copied = everything(here=False)
    assert copied == everything(here=True)
    assert len(copied) == 3
    assert copied["sft"][5] == ["abc"]
    assert sync.waiting() == []
    assert sync.deliver() == 0
    client = connection.client()
    (one,) = client.search_runs(
        [connection.experiment(client, "starter")], "tags.stage = 'sft'"
    )
    assert (
        Path(client.download_artifacts(one.info.run_id, "curve.tsv")).read_text() == "as it was"
    )


def test_what_is_new_is_copied_while_the_stage_works(server, checked):
    with mlflow_runs.stage("sft", checked) as run:
        run.metrics({"loss": 1.0}, 1)
        assert sync.deliver() == 0
        first = everything(here=False)["sft"]
        run.metrics({"loss": 0.5}, 2)
        sync.deliver()
        second = everything(here=False)["sft"]

    assert [point[:2] for point in first[3]["loss"]] == [(1, 1.0)]
    assert [point[:2] for point in second[3]["loss"]] == [(1, 1.0), (2, 0.5)]
    assert first[6] == "RUNNING"
    sync.deliver()
    assert everything(here=False) == everything(here=True)


def breaking(monkeypatch, frail):
    """Let the server be reached by this client."""
    connect = connection.client
    monkeypatch.setattr(
        connection, "client", lambda *, here=False: connect(here=True) if here else frail
    )


class Frail:
    """A client whose answer to one request is lost: what was asked may be done or not."""

    def __init__(self, client, breaks, does):
        self._client, self._breaks, self._does = client, breaks, does
        self.count = 0

    def __getattr__(self, name):
        found = getattr(self._client, name)
        return functools.partial(self._ask, found) if callable(found) else found

    def _ask(self, method, *words, **named):
        self.count += 1
        broken = self.count == self._breaks
        if broken and not self._does:
            raise ConnectionError("the request was lost")
        answer = method(*words, **named)
        if broken:
            raise ConnectionError("the answer was lost")
        return answer


@pytest.mark.parametrize(
    "does", [pytest.param(False, marks=pytest.mark.slow), True], ids=["request", "answer"]
)
def test_wherever_a_copy_is_cut_it_goes_on_and_all_is_there_once(
    server, checked, workspace, monkeypatch, does
):
    with mlflow_runs.stage("sft", checked) as run:
        say_much(run, workspace)
    kept = {file: file.read_text() for file in sync.waiting()}
    expected = everything(here=True)
    requests = 0
    for breaks in range(1, 200):
        frail = Frail(connection.client(), breaks, does)
        with monkeypatch.context() as broken:
            breaking(broken, frail)
            with contextlib.suppress(ConnectionError):
                sync.deliver()
        if frail.count < breaks:  # it was never reached
            break
        requests += 1
        sync.deliver()
        assert everything(here=False) == expected, breaks
        for file, text in kept.items():  # as if nothing had arrived: it is all sent again
            file.write_text(text)
    assert requests > 20


def test_a_run_that_the_client_made_twice_is_one(server, checked, monkeypatch):
    import mlflow

    with mlflow_runs.stage("sft", checked):
        pass
    create = mlflow.MlflowClient.create_run

    def twice(*words, **named):
        create(*words, **named)
        return create(*words, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", twice)
    sync.deliver()

    assert everything(here=False) == everything(here=True)


def test_points_are_sent_many_at_once(server, checked, monkeypatch):
    with mlflow_runs.stage("sft", checked) as run:
        for step in range(1, 601):
            run.metrics({"loss": 1 / step}, step)
    frail = Frail(connection.client(), None, does=True)
    with monkeypatch.context() as counted:
        breaking(counted, frail)
        sync.deliver()

    assert frail.count < 40
    steps = [point[0] for point in everything(here=False)["sft"][3]["loss"]]
    assert steps == list(range(1, 601))


def test_only_one_process_copies_at_a_time(server, checked):
    with mlflow_runs.stage("sft", checked):
        pass
    taken = (sync.FOLDER / "lock").open("w")
    import fcntl

    with taken:
        fcntl.flock(taken, fcntl.LOCK_EX)
        assert sync.deliver() == 0
    assert sync.deliver() == 2


def test_a_run_that_somebody_removed_here_holds_up_no_other(server, checked):
    with mlflow_runs.stage("sft", checked):
        pass
    (sync.FOLDER / "0-0123456789abcdef0123456789abcdef.json").write_text("{}")

    assert sync.deliver() == 2
    assert sync.waiting() == []


def test_one_that_was_killed_is_copied_as_killed(server, checked):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    process.kill()
    with process:
        process.wait(20)
    # That process took the file for MLflow itself, as it is one: this stage is the next there.
    here = connection.client()
    at = [connection.experiment(here, "starter")]
    assert {run.info.status for run in here.search_runs(at)} == {"RUNNING"}

    sync.bury_the_dead(here, at)

    assert {run.info.status for run in here.search_runs(at)} == {"KILLED"}


@pytest.fixture
def away(checked, monkeypatch):
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setenv(
            "MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}"
        )
        yield


def test_a_server_that_hangs_holds_a_stage_up_for_so_long_and_is_said_once(
    away, checked, monkeypatch, caplog
):
    monkeypatch.setattr(sync, "_ANSWER_SECONDS", 2.0)
    with mlflow_runs.stage("sft", checked) as run:
        began = time.monotonic()
        for step in range(20):
            run.metrics({"loss": 1.0}, step)
        worked = time.monotonic()
    ended = time.monotonic()

    assert ended - worked < 10
    said = [r.message for r in caplog.records if r.name == "tasks.tracking.mlflow_runs"]
    assert len(said) == 1
    assert said[0].startswith("MLflow at http://127.0.0.1:")
    assert "kept in artifacts/mlflow and delivered later" in said[0]
    assert len(sync.waiting()) == 2
    assert worked - began < 10


def test_a_person_who_stops_a_stage_waits_less(away, checked, monkeypatch):
    monkeypatch.setattr(sync, "_STOPPED_SECONDS", 0.1)
    moments = []

    def stopped():
        with mlflow_runs.stage("sft", checked):
            moments.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()

    assert time.monotonic() - moments[0] < 10  # less than the 30 s of a stage that has ended


def test_while_a_server_answers_the_stage_waits_for_it(checked, monkeypatch, tmp_path):
    monkeypatch.setattr(connection, "is_away", lambda: True)
    monkeypatch.setattr(sync, "_ANSWER_SECONDS", 1.0)
    process = sync.Process.__new__(sync.Process)
    slow = "import sys, time; sys.stdin.read(); time.sleep(3)"
    process._process = subprocess.Popen([sys.executable, "-c", slow], stdin=subprocess.PIPE)
    sync.FOLDER.mkdir(parents=True)
    over = threading.Event()

    def answer():
        while not over.wait(0.2):
            (sync.FOLDER / "1-a.json").write_text(json.dumps({"sending": 0}))

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert process.finish(stopped=False)
    finally:
        over.set()
        thread.join()


def test_a_password_of_a_database_is_in_no_message(checked, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:marked-secret@127.0.0.1:9/runs")
    said = []

    with mlflow_runs.study("study/abc", {"seeds": [0]}, said.append):
        pass

    assert "postgresql://…@127.0.0.1:9/runs did not answer" in said[0]
    assert "marked-secret" not in said[0]
