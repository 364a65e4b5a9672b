"""MLflow's own pages in a real Chromium: what they show of our runs and models."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from atelier.config.profile import read_profile
from tasks.run import paths
from tasks.tracking import connection, links, mlflow_runs, registry
from tests.browser import browser, chromium  # noqa: F401 -- fixtures
from tests.tasks.tracking.test_registry import SUITES, THETA, report, track_with_dvc, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TEXT = "document.body.innerText"


@pytest.fixture
def pages(workspace, mlflow_folder, monkeypatch):
    """An MLflow server on three runs: two objectives of one stage, and a report."""
    monkeypatch.setenv("ATELIER_PIPELINE", "prefect/one")
    monkeypatch.setenv("ATELIER_RUN_NAME", "starter: ω=2 · by ana")
    profile = read_profile(paths.profile("starter"))
    track_with_dvc()
    with mlflow_runs.stage("cpo", profile) as tracked:
        for name, omega in (("cpo", 0.5), ("cpo-s", 4.0)):
            with tracked.part(name, {"omega": omega}, paths.CPO / name) as own:
                train(**{name.replace("-", "_"): name})
                own.metrics({"drift": omega / 8})
    with mlflow_runs.stage("report", profile):
        report()
        registry.run(evaluating=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", connection.tracking_uri(), "--workers", "1"]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (workspace / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *words], env=quiet, stdout=log, stderr=log, start_new_session=True
        )
    base = f"http://127.0.0.1:{port}"
    try:
        await_answer(f"{base}/health", server)
        monkeypatch.setattr(links, "base", lambda: base)
        yield links.of_profile("starter")
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def await_answer(address, server):
    end = time.monotonic() + 200
    while time.monotonic() < end:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer at {address}")


def seen(browser, page, *words, shot):  # noqa: F811
    """The text of a page once it has these words."""
    browser.screen(1600, 1200)
    browser.go(page)
    for word in words:
        browser.until(f"{TEXT}.includes({word!r})")
    text = browser.value(TEXT)
    folder = os.environ.get("ATELIER_SHOTS")
    if folder:
        from pathlib import Path

        browser.picture(Path(folder) / f"{shot}.png")
    return text


def test_versions_side_by_side_have_their_own_numbers(pages, browser):  # noqa: F811
    text = seen(
        browser, pages["comparison"], "Comparing 2 Versions", "negatives", shot="compare"
    )

    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines()}
    for metric in ("negatives", "fid"):
        assert sorted(map(float, rows[metric])) == sorted(
            SUITES[name][metric] for name in ("cpo", "cpo-s")
        )
    assert sorted(rows["omega"]) == ["0.5", "4.0"]


def test_the_list_of_runs_tells_results_and_what_changed(pages, browser):  # noqa: F811
    name = "starter: ω=2 · by ana → cpo-s #A_neg 1.50, FID 3.00"

    text = seen(browser, pages["runs"], name, shot="runs")

    for heading in ("A_neg", "FID", "changed", "champion"):
        assert heading in text, text
    assert "cpo-s v2" in text


def test_the_page_of_models_shows_few_tags_and_the_card(pages, browser):  # noqa: F811
    text = seen(browser, f"{pages['models']}/versions/2", "Version 2", shot="version")

    assert "objective" in text
    assert "dvc.md5" not in text
    assert THETA in text
