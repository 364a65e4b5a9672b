"""What a DVC user expects beside `dvc repro`: experiments, differences, remotes, clones."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def git(*words, cwd=None):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], cwd=cwd, check=True, capture_output=True)


def dvc(*words, cwd=None):
    said = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


@pytest.fixture
def committed(repository, monkeypatch):
    """The small repository in git, with a metric, brought up to date."""
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "a")
        monkeypatch.setenv(f"{name}_EMAIL", "a@b")
    content = yaml.safe_load((repository / "dvc.yaml").read_text())
    content["stages"]["measure"] = {
        "cmd": "python measure.py",
        "deps": ["out/look"],
        "metrics": ["out/metrics.json"],
    }
    (repository / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (repository / "measure.py").write_text(
        "from pathlib import Path\n"
        "letters = len(Path('out/look').read_text())\n"
        "Path('out/metrics.json').write_text('{\"letters\": %d}' % letters)\n"
    )
    (repository / ".dvc/.gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (repository / ".gitignore").write_text("/out\n")
    git("init", "-q", "-b", "main")
    dvc("config", "--unset", "core.no_scm")
    dvc("repro", "-q")
    git("add", "-A")
    git("commit", "-qm", "Red")
    return repository


def experiments():
    """Colour and letters of each experiment."""
    rows = json.loads(dvc("exp", "show", "--json"))
    found = []
    for one in rows[1].get("experiments") or []:
        data = one["revs"][0]["data"]
        colour = data["params"]["params/starter.yaml"]["data"]["colour"]
        found.append((colour, data["metrics"]["out/metrics.json"]["data"]["letters"]))
    return sorted(found)


def test_experiments_run_queued_and_at_once_and_are_shown(committed):
    dvc("exp", "run", "-S", "params/starter.yaml:colour=violet")
    git("checkout", "-q", "--", ".")
    dvc("exp", "run", "--queue", "-S", "params/starter.yaml:colour=blue")
    dvc("exp", "run", "--run-all")

    # Twice "colour: <name>\n".
    assert experiments() == [("blue", 2 * 13), ("violet", 2 * 15)]


STAGE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from mlflow import MlflowClient
from tasks.tracking import main_repository
from tasks.tracking import connection

main_repository.share()
mlflow = connection.client(here=True)
run = mlflow.create_run(mlflow.create_experiment(f"atelier-{os.getpid()}"))
mlflow.log_param(run.info.run_id, "experiment", str(main_repository.experiment()))
open("out/logged", "w").write(open("out/draw").read())
"""


@pytest.mark.parametrize("how", [["--temp"], ["--queue"]])
def test_a_temporary_experiment_logs_to_the_main_repositorys_store(committed, how, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (committed / "log.py").write_text(STAGE)
    content = yaml.safe_load((committed / "dvc.yaml").read_text())
    content["stages"]["log"] = {
        "cmd": f"{sys.executable} log.py {ROOT}",
        "deps": ["out/draw"],
        "outs": ["out/logged"],
    }
    (committed / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    git("add", "-A")
    git("commit", "-qm", "Log")

    name = ["--name", "blue", "-S", "params/starter.yaml:colour=blue"]
    dvc("exp", "run", *how, *name)
    if how == ["--queue"]:
        dvc("exp", "run", "--run-all")

    store = MlflowClient(tracking_uri=f"sqlite:///{committed}/artifacts/mlflow/mlflow.db")
    found = [one.experiment_id for one in store.search_experiments()]
    assert [run.data.params["experiment"] for run in store.search_runs(found)] == ["blue"]


def test_differences_name_the_setting_and_the_number(committed):
    (committed / "params/starter.yaml").write_text("colour: violet\n")
    dvc("repro", "-q")

    params = json.loads(dvc("params", "diff", "--json"))
    metrics = json.loads(dvc("metrics", "diff", "--json"))

    assert params["params/starter.yaml"] == {"colour": {"old": "red", "new": "violet"}}
    (letters,) = metrics["out/metrics.json"].values()
    assert (letters["old"], letters["new"], letters["diff"]) == (24, 30, 6)


@pytest.fixture(params=["folder", "S3"])
def remote(request, tmp_path_factory, monkeypatch):
    """A DVC remote; its options."""
    if request.param == "folder":
        yield {"url": str(tmp_path_factory.mktemp("store"))}
        return
    for module in ("dvc_s3", "moto"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install dvc-s3 'moto[server]'")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        make_bucket(f"{address}/dvc")
        yield {"url": "s3://dvc/store", "endpointurl": address}
    finally:
        server.kill()
        server.wait(30)


def make_bucket(address):
    for _ in range(120):
        try:
            with urllib.request.urlopen(
                urllib.request.Request(address, method="PUT"), timeout=5
            ):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer at {address}")


def test_a_colleague_pulls_and_repeats_nothing(committed, remote, tmp_path_factory):
    dvc("remote", "add", "-d", "store", remote.pop("url"))
    for option, value in remote.items():
        dvc("remote", "modify", "store", option, value)
    git("commit", "-qam", "Store")
    dvc("push", "-q", "--run-cache")
    clone = tmp_path_factory.mktemp("colleague") / "clone"
    git("clone", "-q", str(committed), str(clone))

    dvc("pull", "-q", "--run-cache", cwd=clone)

    shown = json.loads(dvc("metrics", "show", "--json", cwd=clone))
    assert shown[""]["data"]["out/metrics.json"]["data"] == {"letters": 24}
    assert dvc("repro", cwd=clone).count("didn't change, skipping") == 4
    shutil.rmtree(clone / "out")
    (clone / "dvc.lock").unlink()
    os.utime(clone / "dvc.yaml")
    assert "Running stage 'train'" not in dvc("repro", cwd=clone)  # the run cache came along
