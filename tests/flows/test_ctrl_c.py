"""Ctrl-C on a flow that has no Prefect server: quick, one line, the run's end recorded."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
LINE = "Stopped; the same command goes on from the last checkpoint.\n"
SLOW_WORK = """
import time
from pathlib import Path
Path("started").touch()
for step in range(600):
    print(f"train: step {step}/600", flush=True)
    time.sleep(0.5)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_ends_a_flow_within_ten_seconds(repository, tmp_path_factory):
    (repository / "work.py").write_text(SLOW_WORK)
    home = tmp_path_factory.mktemp("prefect")
    log = home / "log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "run"],
            env=environment(home),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # as a terminal's job has a process group of its own
        )
    try:
        await_that((repository / "started").exists, process)
    except AssertionError:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    before = log.read_text()

    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    code = process.wait(60)
    took = time.monotonic() - began

    assert code == 130
    assert took < 10
    said_since = log.read_text().removeprefix(before).splitlines(keepends=True)
    assert [line for line in said_since if "train: step" not in line] == [LINE]
    assert states(home) == ["CRASHED"]
    assert left_in(repository) == []


def environment(home):
    """Ours without servers, with a home for Prefect and leases of devices of its own."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))}
    return mine | {
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "TMPDIR": str(home),
    }


def await_that(happened, process):
    end = time.monotonic() + 200
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)


def states(home):
    """States of the flow runs in Prefect's database."""
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        return [state for (state,) in database.execute("SELECT state_type FROM flow_run")]


def left_in(folder):
    """Commands of the processes that still work in a folder."""
    return [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] == str(folder) and process.pid != os.getpid()
    ]
