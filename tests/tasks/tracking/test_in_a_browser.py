"""MLflow's own pages in a real Chromium: what they show of our runs and models."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from atelier.config.profile import read_profile
from tasks.run import paths
from tasks.tracking import connection, links, mlflow_runs, registry
from tests.browser import TEXT, browser, chromium, seen  # noqa: F401 -- fixtures among them
from tests.conftest import small_profile
from tests.tasks.conftest import enter_workspace
from tests.tasks.tracking.test_registry import SUITES, THETA, report, track_with_dvc, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
OMEGAS = {"cpo": 0.5, "cpo-s": 4.0, "dpo": 1.5}
MEASURED = {
    "cpo": SUITES["cpo"],
    "cpo-s": SUITES["cpo-s"],
    "dpo": {"negatives": 2.25, "fid": 8},
}
PREFECT = "http://127.0.0.1:4200/runs/flow-run/one"  # what a flow says of itself to its stages


@pytest.fixture(scope="module")
def pages(tmp_path_factory, mlflow_tables):
    """An MLflow server on a pipeline's run: three objectives of one stage, and a report."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        enter_workspace(folder, patch, small_profile())
        paths.MLFLOW.mkdir(parents=True)
        shutil.copy(mlflow_tables, paths.MLFLOW)
        patch.setenv("ATELIER_PIPELINE", "prefect/one")
        patch.setenv("ATELIER_RUN_NAME", "starter: ω=2 · by ana")
        patch.setenv(mlflow_runs.FLOW_PAGE, PREFECT)
        run_a_pipeline()
        with server_of(connection.tracking_uri(), folder / "server.log") as base:
            patch.setattr(links, "base", lambda: base)
            yield mlflow_runs.pipeline_pages("starter", "prefect/one")


def run_a_pipeline():
    profile = read_profile(paths.profile("starter"))
    track_with_dvc()
    with mlflow_runs.stage("cpo", profile) as tracked:
        for name, omega in OMEGAS.items():
            with tracked.part(name, {"omega": omega}, paths.CPO / name) as own:
                train(**{name.replace("-", "_"): name})
                own.metrics({"drift": omega / 8})
    with mlflow_runs.stage("report", profile) as tracked:
        report(dpo=MEASURED["dpo"])
        paths.PAGE.write_text("<h1>The report of ω 2</h1>")
        tracked.file(paths.PAGE)
        registry.run(evaluating=True)


@contextlib.contextmanager
def server_of(store, log):
    """An MLflow server on a store; its address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", store, "--workers", "1"]
    quiet = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, *words], env=quiet, stdout=out, stderr=out, start_new_session=True
        )
    base = f"http://127.0.0.1:{port}"
    try:
        await_answer(f"{base}/health", server)
        yield base
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def await_answer(address, server):
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no answer at {address}")


def test_versions_side_by_side_have_their_own_numbers(pages, browser):  # noqa: F811
    seen(browser, pages["comparison"], "Comparing 3 Versions", "omega", "negatives")

    cells = "[...document.querySelectorAll('tr')].map(row => [...row.cells].map(TEXT))"
    found = browser.value(cells.replace("TEXT", "cell => cell.innerText.trim()"))
    rows = {row[0]: row[1:] for row in found if row}
    for metric in ("negatives", "fid"):
        assert sorted(map(float, rows[metric])) == sorted(
            one[metric] for one in MEASURED.values()
        )
    assert sorted(map(float, rows["omega"])) == sorted(OMEGAS.values())


def test_the_list_of_runs_tells_results_and_what_changed(pages, browser):  # noqa: F811
    name = "starter: ω=2 · by ana → cpo-s #A_neg 1.50, FID 3.00"

    text = seen(browser, pages["runs"], name)

    for heading in ("A_neg", "FID", "changed", "champion"):
        assert heading in text, text
    assert "cpo-s v2" in text


def test_the_page_of_a_model_shows_few_tags_and_the_card(pages, browser):  # noqa: F811
    text = seen(browser, f"{pages['models']}/versions/2", "Version 2")

    assert "objective" in text
    assert "dvc.md5" not in text
    assert THETA in text


def test_the_page_of_a_run_leads_to_prefects_and_to_the_report(pages, browser):  # noqa: F811
    seen(browser, pages["this run"], "starter: ω=2 · by ana", "Prefect's run")
    there = browser.value("[...document.links].map(one => one.href).join(' ')").split(" ")
    assert {PREFECT, pages["its report"], pages["models"], pages["runs"]} <= {*there}
    assert any("/compare-model-versions?" in one for one in there)

    text = seen(browser, pages["its report"], paths.PAGE.name)

    assert paths.PAGE.name in text
