"""Prefect's server down or broken at every point of a flow, then back."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.faults.proxy import Proxy

ROOT = Path(__file__).parents[2]
SECTION = "Servers away"
FATES = ("down", "500", "hang")
WORK = """
import sys, time
from pathlib import Path
with open("worked", "a") as out:
    out.write(sys.argv[1] + "\\n")
for step in range(1, 11):
    print(f"{sys.argv[1]}: step {step}/10 · loss 1", flush=True)
    time.sleep(0.5 if sys.argv[1] == "train" else 0)
Path("out").mkdir(exist_ok=True)
Path("out", sys.argv[1]).write_text("done")
"""
META = {"memory": 0, "retries": 0, "timeout": 120, "silence": 60}
STAGES = {
    name: {
        "desc": name,
        "cmd": f"python work.py {name}",
        "deps": deps,
        "params": [{"params/${profile}.yaml": ["colour"]}],
        "outs": [f"out/{name}"],
        "meta": META | {"gpu": int(name == "train")},
    }
    for name, deps in {"draw": [], "train": ["out/draw"], "look": ["out/train"]}.items()
}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real Prefect server; its port."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    environment = os.environ | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    environment.pop("PREFECT_API_URL", None)
    words = ["server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 180
    while True:
        address = f"http://127.0.0.1:{port}/api/health"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            break
        assert time.monotonic() < end, "Prefect's server never answered"
        time.sleep(0.5)
    yield port
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)


@pytest.fixture
def proxy(server):
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture
def place(tmp_path, monkeypatch, proxy):
    folder = tmp_path / "repository"
    (folder / "params").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name, value in {
        "DVC_NO_ANALYTICS": "1",
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_URL": f"{proxy.address}/api",
        # Less patience than Prefect has: a minute for each of six tries.
        "PREFECT_API_REQUEST_TIMEOUT": "3",
        "PREFECT_CLIENT_MAX_RETRIES": "1",  # its server answers 503 while it is busy
        "TMPDIR": str(tmp_path),  # leases of devices lie there
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }.items():
        monkeypatch.setenv(name, value)
    Path("params/profile.yaml").write_text("profile: starter\n")
    Path("params/starter.yaml").write_text("colour: red\n")
    Path("work.py").write_text(WORK)
    Path("dvc.yaml").write_text(
        yaml.safe_dump({"vars": ["params/profile.yaml"], "stages": STAGES}, sort_keys=False)
    )
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    return folder


def worked():
    return Path("worked").read_text().split() if Path("worked").exists() else []


def reproduce(trouble=None, at=None):
    """Run the flow; once the stage ``at`` has begun, cause trouble. Returns output, seconds."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while trouble is not None and process.poll() is None:
            if at in worked():
                trouble()
                break
            time.sleep(0.2)
        said, _ = process.communicate(timeout=400)
    return process.returncode, said, time.monotonic() - began


@pytest.mark.timeout(500)
def test_a_flow_without_its_server_says_so_and_runs_once_it_is_back(place, proxy, figure):
    longest = 0.0
    for fate in FATES:
        proxy.down() if fate == "down" else proxy.all(fate)
        code, said, seconds = reproduce()
        longest = max(longest, seconds)
        assert code == 2, said
        assert said.strip().splitlines()[-1].startswith("Error: Prefect's server at "), said
        assert "Traceback" not in said
        proxy.mend()
    assert worked() == []

    code, said, _ = reproduce()

    assert code == 0, said
    assert worked() == list(STAGES)
    figure(
        SECTION,
        f"Prefect's server {', '.join(FATES)} before a flow, then back",
        len(FATES),
        f"one paragraph after {longest:.0f} s at most; the next run did all of it",
    )


@pytest.mark.timeout(500)
@pytest.mark.parametrize("fate", FATES)
def test_what_a_stage_did_stays_done_when_the_server_dies(place, proxy, figure, fate):
    def trouble():
        proxy.down() if fate == "down" else (proxy.down(), proxy.up(), proxy.all(fate))

    _, said, seconds = reproduce(trouble, "train")
    assert [Path("out", name).exists() for name in ("draw", "train")] == [True, True], said
    proxy.mend()

    code, said, _ = reproduce()

    assert code == 0, said
    assert sorted(worked()) == sorted(STAGES)  # each once
    assert all(Path("out", name).read_text() == "done" for name in STAGES)
    figure(
        SECTION,
        f"Prefect's server {fate} while the second of three stages runs, then back; our "
        "patience set to 3 s a request, two tries",
        1,
        f"the stage went on to its end, the run ended after {seconds:.0f} s; the next one went "
        "on: no stage ran twice",
    )
