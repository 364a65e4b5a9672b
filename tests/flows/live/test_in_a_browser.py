"""The live page in a real Chromium, on a real training that DVC runs: read, stop, continue."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from flows.live import runs
from tasks.run import paths
from tasks.tracking import run_record
from tests.browser import browser, chromium, eventually  # noqa: F401 -- fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[3]
META = {"gpu": 0, "memory": 0, "retries": 0, "timeout": 900, "silence": 900}
STEPS = 100_000  # more than the test waits for
TEXT = "document.body.innerText"


@pytest.fixture
def clone(studio, monkeypatch):
    """The studio as a DVC repository with one stage, a training that takes long."""
    values = yaml.safe_load((paths.PARAMS / "toy.yaml").read_text())
    grids = {"every_steps": 5, "prompts": 2, "steps": 1, "guidance": 1.0}
    training = {"steps": STEPS, "checkpoint_steps": 5, "report_steps": 1}
    values["sft"]["training"] |= training | {"grids": grids | {"distilled_guidance": None}}
    (paths.PARAMS / "toy.yaml").write_text(yaml.safe_dump(values))
    records = (paths.SPLIT / "train.jsonl").read_text().splitlines(keepends=True)
    (paths.SPLIT / "validation.jsonl").write_text("".join(records[:4]))
    stage = {
        "desc": "Teach the base",
        "cmd": "python -m tasks sft",
        "params": [{"params/toy.yaml": ["sft"]}],
        "outs": ["artifacts/sft"],
        "meta": META,
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"sft": stage}}))
    for variable in ("MLFLOW_TRACKING_URI", "ATELIER_PIPELINE", "PREFECT_API_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    python("-m", "dvc", "init", "-q", "--no-scm").wait()
    yield Path.cwd()
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(Path.cwd()) and process.pid != os.getpid():
            process.kill()


def python(*words):
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture
def address(clone, unused_port):
    server = python("-m", "cli", "live", "--port", str(unused_port), "--hour-price", "36")
    yield f"http://127.0.0.1:{unused_port}"
    server.terminate()
    server.wait(30)


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def bar():
    """The bar of the training in the newest run, once it moves."""
    records = [run_record.read(paths.LIVE / key / "sft.json") for key in runs.newest()[:1]]
    bars = [
        one for record in records for one in record.get("bars", ()) if one["title"] == "sft"
    ]
    return bars[0] if bars and bars[0]["done"] > 0 else None


def await_that(ask):
    for _ in range(10):
        try:
            return eventually(ask)
        except AssertionError:
            continue
    raise AssertionError("it did not come to be in ten minutes")


def test_a_run_is_read_stopped_and_continued(clone, address, browser):  # noqa: F811
    words = ["-m", "dvc", "repro"]
    started = python(*words)
    await_that(bar)
    await_that(lambda: browser.go(address) or True)

    def shows(script):
        await_that(lambda: browser.value(script) or None)

    shows(f"{TEXT}.includes('it never ran')")
    shows("document.querySelector('.eta')?.innerText.includes('left')")
    shows("document.querySelectorAll('.chart polyline').length >= 1")
    shows("document.querySelector('.grids img')?.naturalWidth > 0")
    assert browser.value("document.querySelector('#left').innerText") != "–"
    assert float(browser.value("document.querySelector('#price').innerText")) > 0
    assert "sft" in browser.value("document.querySelector('.dag').textContent")
    take_pictures(browser)

    browser.value("document.querySelector('form.buttons button').click()")
    shows(f"{TEXT}.includes('Continue')")
    assert started.wait(60), "DVC says that its stage did not end well"
    stopped = runs.read(runs.newest()[0])
    assert stopped.state == "stopped"
    assert stopped.stages[0].state == "stopped"
    done = stopped.stages[0].bar.done

    browser.value("document.querySelector('form.buttons button').click()")
    await_that(lambda: runs.newest()[0] != stopped.key or None)
    await_that(bar)
    assert 0 < bar()["first"] <= done, "it goes on from its last checkpoint"
    assert runs.read(runs.newest()[0]).noted["command"][1:] == words
    shows("document.querySelector('.eta')?.innerText.includes('left')")
    browser.value("document.querySelector('form.buttons button').click()")
    await_that(lambda: runs.read(runs.newest()[0]).state == "stopped" or None)
    assert browser.complaints == []
    assert all(one.startswith(address) for one in browser.asked if one != "about:blank")


def take_pictures(browser):  # noqa: F811
    """Keep what the page looks like, for people."""
    folder = os.environ.get("ATELIER_SHOTS")
    for name, width, height, touch in (
        ("desktop", 1440, 1000, False),
        ("phone", 390, 1600, True),
    ):
        for dark in (False, True) if folder else ():
            browser.screen(width, height, touch=touch, dark=dark)
            browser.picture(Path(folder) / f"live-{name}-{'dark' if dark else 'light'}.png")
