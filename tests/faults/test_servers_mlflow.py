"""MLflow down, slow, broken at every point of a stage, then back: nothing lost, none twice."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid

import pytest
import yaml
from PIL import Image

from atelier.config.profile import read_profile
from tasks.run import paths
from tasks.tracking import connection, mlflow_runs, registry, sync
from tests.faults.proxy import Proxy

SECTION = "Servers away"
STEPS = 24
FATES = ("down", "500", "drop", "lost", "slow", "hang", "dribble")
POINTS = ("before", "start", "middle", "end")
CASES = [(fate, point) for fate in FATES[:4] for point in POINTS]
CASES += [("slow", "start"), ("hang", "start"), ("dribble", "end")]  # these take time
STORMS = 10
LORA = registry.LORA


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory, mlflow_database):
    """A real MLflow server; its port."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(mlflow_database, folder / "mlflow.db")
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    words += ["--artifacts-destination", (folder / "files").as_uri()]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words],
        env=os.environ
        | {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until_healthy(f"http://127.0.0.1:{port}/health")
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a proxy may hold its connections open
        process.wait(30)


def until_healthy(address):
    end = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        assert time.monotonic() < end, f"{address} never answered"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def mlflow_database(tmp_path_factory):
    import mlflow

    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def proxy(server, monkeypatch):
    with Proxy(server) as proxy:
        proxy.seconds = 0.3
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        yield proxy


@pytest.fixture
def place(tmp_path, monkeypatch, profile):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATELIER_PIPELINE", raising=False)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/profile.yaml").write_text("profile: starter\n")
    (tmp_path / "params/starter.yaml").write_text(yaml.safe_dump(profile))
    return tmp_path


@pytest.fixture
def hasty(monkeypatch):
    """Patience at a fifth, so that many hangs fit into a test."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setattr(sync, "_ANSWER_SECONDS", sync._ANSWER_SECONDS / 5)


def break_down(proxy, fate):
    proxy.down() if fate == "down" else proxy.all(fate)


def work(name, pipeline, monkeypatch, *, trouble=lambda point: None):
    """A stage that says all kinds of things; returns the seconds it took."""
    monkeypatch.setenv("ATELIER_PIPELINE", pipeline)
    began = time.monotonic()
    trouble("before")
    with mlflow_runs.stage(name, read_profile(paths.profile("starter"))) as run:
        trouble("start")
        for step in range(1, STEPS + 1):
            if step == STEPS // 2:
                trouble("middle")
            run.metrics({"loss": 1 / step, "drift": step / STEPS}, step)
            if step % 12 == 0:
                run.picture("grid", Image.new("RGB", (8, 8), (step, 0, 0)), step)
        run.metrics({"#A_neg": 3.5, "loss": 0.125})
        run.tags({"why": "for a test"})
        paths.MLFLOW.mkdir(parents=True, exist_ok=True)
        (paths.MLFLOW / "curve.tsv").write_text(f"{pipeline}\n")
        run.file(paths.MLFLOW / "curve.tsv")
        trouble("end")
    return time.monotonic() - began


def known(pipeline):
    """All that MLflow has of a pipeline, without names that chance or time gave."""
    mlflow = connection.client()
    at = connection.experiment(mlflow, "starter")
    parents = mlflow.search_runs([at], f"tags.`atelier.pipeline` = '{pipeline}'")
    found = []
    for parent in parents:
        mine = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        found.append([of_run(mlflow, run) for run in [parent, *mlflow.search_runs([at], mine)]])
    return found


def known_undisturbed(monkeypatch):
    name = f"undisturbed {uuid.uuid4()}"  # one server serves several tests
    work("sft", name, monkeypatch)
    deliver_all()
    (undisturbed,) = known(name)
    return undisturbed


def of_run(mlflow, run):
    ident = run.info.run_id
    curves = {
        name: [(p.step, p.value) for p in mlflow.get_metric_history(ident, name)]
        for name in run.data.metrics
        if not name.startswith("system/")
    }
    files = sorted(entry.path.split("+timestamp+")[0] for entry in mlflow.list_artifacts(ident))
    pictures = sorted(
        (entry.path.split("+timestamp+")[0], entry.path.rpartition(".")[2])
        for entry in mlflow.list_artifacts(ident, "images")
    )
    names = ("stage", "why", "sft.why", "profile", "mlflow.loggedImages")
    tags = {name: run.data.tags.get(name) for name in names}
    return curves, files, pictures, tags, len(run.data.params), run.info.status


def deliver_all():
    for _ in range(20):
        with contextlib.suppress(Exception):
            sync.deliver()
        if not sync.waiting():
            return
    raise AssertionError(f"{sync.waiting()} were never delivered")


@pytest.mark.timeout(400)
def test_a_stage_ends_and_mlflow_has_all_of_it_once(place, proxy, hasty, monkeypatch, figure):
    undisturbed = known_undisturbed(monkeypatch)
    assert len(undisturbed) == 2
    assert undisturbed[1][-1] == "FINISHED"
    assert undisturbed[1][0]["loss"][-1] == (STEPS, 0.125)
    held = {}
    for fate, point in CASES:
        case = f"{fate} {point}"
        held[case] = work(
            "sft",
            case,
            monkeypatch,
            trouble=lambda at, p=point, f=fate: break_down(proxy, f) if at == p else None,
        )
        proxy.mend()
        deliver_all()
        assert known(case) == [undisturbed], case
    figure(
        SECTION,
        f"MLflow {', '.join(FATES)} {', '.join(POINTS)} a stage of {STEPS} steps, then back "
        f"({proxy.faults:,} requests met it; our patience set to a fifth)",
        len(CASES),
        "one run and one parent each, all points, pictures, files and tags as undisturbed; "
        f"the stage took {max(held.values()):.0f} s at most",
    )


@pytest.mark.timeout(300)
def test_a_storm(place, proxy, hasty, monkeypatch, figure):
    undisturbed = known_undisturbed(monkeypatch)
    for seed in range(STORMS):
        proxy.storm(seed, 0.3, ("500", "drop", "lost", "slow"))
        work("sft", f"storm {seed}", monkeypatch)
        proxy.mend()
        deliver_all()
        assert known(f"storm {seed}") == [undisturbed], seed
    figure(
        SECTION,
        f"30% of MLflow's requests broken by chance, for whole stages ({proxy.faults:,})",
        STORMS,
        "as undisturbed, once MLflow was back",
    )


@pytest.mark.timeout(300)
def test_how_long_a_server_that_trickles_holds_up(place, proxy, hasty, monkeypatch, figure):
    held = work("sft", "trickle", monkeypatch, trouble=lambda at: proxy.all("dribble"))

    assert held < 60
    proxy.mend()
    deliver_all()
    assert len(known("trickle")) == 1
    figure(
        SECTION,
        "MLflow takes requests and trickles, from beginning to end of a stage; our patience "
        "set to a fifth",
        1,
        f"the stage was held up {held:.0f} s in all, and all was delivered later",
    )


@pytest.fixture
def trained(place):
    """A DVC repository with a θ1 and two θ, measured."""
    suites = {
        "base": {"negatives": 3.4, "fid": 9.0},
        "theta1": {"negatives": 3.1, "fid": 7.0},
        "cpo-s": {"negatives": 1.5, "fid": 3.0},
        "cpo": {"negatives": 1.0, "fid": 12.0},
    }
    outs = {"sft": f"artifacts/sft/{LORA}", "cpo": "artifacts/cpo"}
    measured = paths.SUITES
    stages = {name: {"cmd": "true", "outs": [out]} for name, out in outs.items()}
    stages["report"] = {"cmd": "true", "deps": [*outs.values()], "outs": [str(measured)]}
    (place / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for folder in (paths.SFT, paths.CPO / "cpo", paths.CPO / "cpo-s"):
        folder.mkdir(parents=True)
        (folder / LORA).write_text(folder.name)
    paths.REPORT.mkdir()
    measured.write_text(json.dumps(suites))
    for words in (["init", "--no-scm"], ["commit", "-f"]):
        subprocess.run(
            [sys.executable, "-m", "dvc", *words, "-q"],
            env=os.environ | {"DVC_NO_ANALYTICS": "1"},
            check=True,
        )


def registered():
    """Versions by painter, the champion, and how many models were logged."""
    mlflow = connection.client()
    at = connection.experiment(mlflow, "starter")
    theta = "atelier-starter-theta"
    return {
        "versions": sorted(
            (one.name, one.tags["painter"], one.tags.get("negatives"))
            for name in (theta, "atelier-starter-theta1")
            for one in mlflow.search_model_versions(f"name = '{name}'")
        ),
        "champion": mlflow.get_model_version(
            theta, mlflow.get_model_version_by_alias(theta, "champion").version
        ).tags["painter"],
        "models": sorted(one.name for one in mlflow.search_logged_models([at])),
    }


@pytest.mark.timeout(400)
def test_the_registry_reconciles_once_mlflow_is_back(trained, proxy, hasty, figure, capsys):
    for seed in range(4):
        proxy.storm(seed, 0.15, ("500", "drop", "lost", "lost"))
        registry.run()
    interrupted = capsys.readouterr().out.count("the registry is as it was")
    for count in (5, 20):
        proxy.after(count, "lost")
        registry.run()
    proxy.mend()
    registry.run()
    first = registered()
    registry.run()

    assert registered() == first
    assert first == {
        "versions": [
            ("atelier-starter-theta", "cpo", "1"),
            ("atelier-starter-theta", "cpo-s", "1.5"),
            ("atelier-starter-theta1", "theta1", "3.1"),
        ],
        "champion": "cpo-s",
        "models": ["cpo", "cpo-s", "theta1"],
    }
    figure(
        SECTION,
        f"MLflow's requests broken while the registry is reconciled ({proxy.faults:,} faults, "
        f"{interrupted + 2} of 6 tries given up)",
        6,
        "three versions, three models, one champion, as undisturbed",
    )
