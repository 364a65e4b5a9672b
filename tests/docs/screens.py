"""Pictures of report, MLflow, Prefect and survey after `make demo`: docs/pictures/screen-*.

`make screens` runs it in a clone where the demo has ended; it is no part of `make test`. It
starts the servers of `atelier up`, runs the stage `report` once more with another setting,
draws a study of its own, and leaves nothing behind but runs in MLflow and Prefect.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.browser import TEXT, Browser, chromium, eventually  # noqa: F401 -- a fixture

pytestmark = pytest.mark.timeout(1500)
ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/pictures"
REPORT = ROOT / "artifacts/report/report.html"
STUDY = "screens"
CHANGED = "report.grid_prompts=4"
WIDE, HIGH = 1360, 850
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # of Prefect's timeline
CLOSE = "document.querySelector('[aria-label=Close]')?.click()"
BUTTON = "[...document.querySelectorAll('button')].find(one => one.innerText == {!r}).click()"
ROW = "[...document.querySelectorAll('tr')].find(one => one.innerText.startsWith({!r}))"
PERSON = {"USER": "ana", "LOGNAME": "ana"}  # in the names of runs


@pytest.fixture(scope="module", autouse=True)
def demo():
    """The root of a clone with a finished demo."""
    if not REPORT.is_file():
        pytest.skip("there is no report; `make demo` makes it")
    stale = subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet"], cwd=ROOT)
    if stale.returncode:
        pytest.fail("stages are out of date; run `dvc repro` first", pytrace=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for name, value in PERSON.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def browser(chromium, tmp_path):  # noqa: F811
    one = Browser(chromium, tmp_path / "profile", *WEBGL)
    one.screen(WIDE, HIGH)
    one.call("Emulation.setScrollbarsHidden", hidden=True)
    yield one
    one.close()


def atelier(*words):
    said = subprocess.run([sys.executable, "-m", "cli", *words], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Addresses of Prefect's and MLflow's servers, after a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        try:
            for name, value in re.findall(r"export (\w+)=(\S+)", atelier("up")):
                patch.setenv(name, value)
            prefect = os.environ["PREFECT_API_URL"].removesuffix("/api")
            if not runs(prefect):
                atelier("run", "--set", CHANGED)
            yield prefect
        finally:
            atelier("down")


def runs(prefect):
    """Return the runs of the changed stage that Prefect's server knows, the last one first."""
    address = f"{prefect}/api/flow_runs/filter"
    every = httpx.post(address, json={"sort": "START_TIME_DESC"}, trust_env=False, timeout=60)
    return [one for one in every.json() if CHANGED.partition("=")[0] in one["name"]]


def keep(browser, name, seconds=3, sides=0):
    """Write what the browser shows as a small file, once charts are drawn as well."""
    time.sleep(seconds)
    file = PICTURES / f"screen-{name}.png"
    browser.picture(file)
    shown = Image.open(file).convert("RGB").crop((sides, 0, WIDE - sides, HIGH))
    shown.save(file.with_suffix(".webp"), quality=80, method=6)
    file.unlink()
    assert file.with_suffix(".webp").stat().st_size < 200_000


def show(browser, page, *words):
    browser.go(page)
    for word in words:
        browser.until(f"{TEXT}.includes({word!r})")


def test_the_report(browser):
    show(browser, REPORT.as_uri(), "cpo-s")

    keep(browser, "report")


def test_the_comparison_in_mlflow(servers, browser):
    (page,) = re.findall(r"^comparison +(\S+)$", atelier("results"), re.M)
    show(browser, page, "Comparing", "negatives")

    browser.value(CLOSE)  # the panel of an assistant
    for section in ("Parameters", "Schema"):
        browser.value(BUTTON.format(section))
    browser.value(f"{ROW.format('negatives')}.scrollIntoView({{block: 'center'}})")
    browser.value("document.querySelector('h1, h2').scrollIntoView()")
    keep(browser, "mlflow")


def test_the_run_in_prefect(servers, browser):
    run, *_ = runs(servers)
    show(browser, f"{servers}/runs/flow-run/{run['id']}", run["name"], "Beginning flow run")

    keep(browser, "prefect", seconds=20)


def test_the_survey(browser):
    folder = ROOT / "artifacts/survey" / STUDY
    shutil.rmtree(folder, ignore_errors=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    address = f"http://127.0.0.1:{port}"
    server = None
    try:
        atelier("survey", "make", STUDY)
        said = atelier("survey", "invite", STUDY, "--group", "experts", "--count", "1")
        (token,) = re.findall(r"/i/(\S+)", said)
        words = ["-m", "cli", "survey", "serve", STUDY, "--port", port]
        server = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
        eventually(lambda: _answers(f"{address}/health"))
        show(browser, f"{address}/i/{token}")
        browser.value("document.querySelector('[name=agree]').click()")
        browser.value("document.querySelector('button.main').click()")
        browser.until("document.querySelectorAll('.pair img').length == 2")
        keep(browser, "survey", sides=145)
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(address):
    try:
        return httpx.get(address, trust_env=False).is_success or None
    except httpx.HTTPError:
        return None
