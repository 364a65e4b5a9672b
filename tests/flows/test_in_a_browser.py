"""Prefect's and MLflow's pages in a real Chromium: form, names, links from one to the other."""

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tasks.run import paths
from tests.browser import PATIENCE_SECONDS, TEXT, browser, chromium, seen, shown  # noqa: F401 -- fixtures among them
from tests.conftest import small_profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
PREFECT_YAML = """
name: small
pull:
- flows.infra.clone.enter: {}
deployments:
- name: "reproduce@{{ $ATELIER_POOL }}"
  entrypoint: flows.reproduce:reproduce
  description: Bring all stages up to date
  tags: [atelier]
  work_pool: {name: "{{ $ATELIER_POOL }}"}
"""
REPORT = """
from atelier.config.profile import read_profile
from tasks.run import paths
from tasks.tracking import connection, mlflow_runs

profile = read_profile(paths.profile("starter"))
omega = profile.cpo.objectives["cpo-s"].omega
with mlflow_runs.stage("report", profile) as tracked:
    paths.REPORT.mkdir(parents=True, exist_ok=True)
    paths.PAGE.write_text(f"<h1>omega {omega}</h1>")
    tracked.file(paths.PAGE)
mlflow = connection.client()
mlflow.create_registered_model("atelier-starter-theta")
at = connection.experiment(mlflow, "atelier-starter")
for tried in (omega, 4 * omega):  # two versions, for the page that compares them
    one = mlflow.create_run(at).info.run_id
    mlflow.log_param(one, "omega", tried)
    mlflow.create_model_version("atelier-starter-theta", f"runs:/{one}/lora", one)
"""
STAGE = {
    "desc": "Report",
    "cmd": f"{sys.executable} report.py",
    "params": [{"params/${profile}.yaml": ["cpo"]}],
    "outs": [paths.PAGE.as_posix()],
    "meta": {"gpu": 0, "memory": 0, "retries": 0, "timeout": 200, "silence": 200},
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A clone with one stage, for which ``up`` started servers and a worker: the addresses."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "params").mkdir()
    (folder / "params/profile.yaml").write_text("profile: starter\n")
    (folder / "params/starter.yaml").write_text(yaml.safe_dump(small_profile()))
    (folder / "report.py").write_text(REPORT)
    (folder / "prefect.yaml").write_text(PREFECT_YAML)
    content = {"vars": ["params/profile.yaml"], "stages": {"report": STAGE}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
        try:
            ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
            said = atelier("up", *ports)
            assert said.returncode == 0, said.stdout + said.stderr
            found = dict(re.findall(r"export (\w+)=(\S+)", said.stdout))
            yield found["PREFECT_API_URL"].removesuffix("/api"), found["MLFLOW_TRACKING_URI"]
        finally:
            atelier("down")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def atelier(*words):
    return subprocess.run(
        [sys.executable, "-m", "cli", *words], capture_output=True, text=True, check=False
    )


def listed(prefect, what):
    address = f"{prefect}/api/{what}/filter"
    return httpx.post(address, json={}, trust_env=False, timeout=PATIENCE_SECONDS).json()


def test_a_form_starts_a_run_whose_name_and_links_are_on_the_pages(servers, browser):  # noqa: F811
    prefect, mlflow = servers
    (deployment,) = listed(prefect, "deployments")
    pool = deployment["work_pool_name"]
    name = deployment["name"]
    assert name == f"reproduce@{pool}"

    assert name in seen(browser, f"{prefect}/deployments", name)
    page = f"{prefect}/deployments/deployment/{deployment['id']}/run"
    form = seen(browser, page, "cpo.objectives", "omega", "now 4.0", "beta", "now 500")
    assert "now 4\n" in form  # of cpo.training.steps
    type_into(browser, "omega", "2.5")
    press(browser, "Submit")
    run = await_end(prefect)

    assert run["state_name"] == "Ran", run["state"]
    assert run["parameters"]["changes"]["objectives"] == {"cpo-s": {"omega": 2.5}}
    title = run["name"]
    assert re.match(r"starter: all stages, cpo-s ω=2\.5 · by ", title)
    assert title in seen(browser, f"{prefect}/runs", title)
    look_at_links(browser, prefect, mlflow, run)
    click_links(browser, prefect, title)


def look_at_links(browser, prefect, mlflow, run):  # noqa: F811
    (artifact,) = (one for one in listed(prefect, "artifacts") if one["key"] == "where-to-look")
    seen(browser, f"{prefect}/artifacts/artifact/{artifact['id']}", "this run", "its report")
    there = links(browser, mlflow)
    (run_page,) = (one for one in there if re.search(r"/runs/\w+$", one))
    (report,) = (one for one in there if one.endswith(f"/artifacts/{paths.PAGE.name}"))

    assert run["name"] in seen(browser, run_page, run["name"], "Prefect's run", "its report")
    (back,) = links(browser, prefect)
    assert back.endswith(f"/flow-run/{run['id']}")
    assert report in links(browser, mlflow)
    assert paths.PAGE.name in seen(browser, report, paths.PAGE.name)
    assert run["name"] in seen(browser, back, run["name"])


def click_links(browser, prefect, title):  # noqa: F811
    """Follow the links of both artifacts by clicks: MLflow's comparison, the live page."""
    pages = {
        one["key"]: f"{prefect}/artifacts/artifact/{one['id']}"
        for one in listed(prefect, "artifacts")
    }
    seen(browser, pages["where-to-look"], "comparison")
    browser.follow("comparison")
    assert "10.0" in shown(browser, "Comparing 2 Versions", "omega", "2.5")
    assert "error occurred" not in browser.value(TEXT)

    seen(browser, pages["live-page"], "Live page of this run")
    browser.follow("Live page of this run")
    assert "report" in shown(browser, title, "finished")


def links(browser, server):  # noqa: F811
    """Addresses of a server to which a page has links."""
    found = browser.value("JSON.stringify([...document.links].map(one => one.href))")
    return sorted({one for one in json.loads(found) if one.startswith(f"{server}/")} - {server})


def type_into(browser, field, text):  # noqa: F811
    """Type into the form's first field of a name, as a person does."""
    browser.value(
        "(() => { const all = [...document.querySelectorAll('.schema-form-property')];"
        f"const mine = all.find(one => one.innerText.startsWith({field!r}));"
        "mine.querySelector('input').focus(); })()"
    )
    browser.call("Input.insertText", text=text)


def press(browser, button):  # noqa: F811
    browser.value(
        "[...document.querySelectorAll('button')]"
        f".find(one => one.innerText === {button!r}).click()"
    )


def await_end(prefect):
    """The one flow run, once it has ended."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        ended = [one for one in listed(prefect, "flow_runs") if one["end_time"]]
        if ended:
            return ended[0]
        time.sleep(2)
    raise AssertionError(Path("artifacts/servers/3-worker.log").read_text()[-3000:])
