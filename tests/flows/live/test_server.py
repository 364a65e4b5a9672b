"""The live page's server: what it shows, and whom its buttons obey."""

import re
import signal
import subprocess
import sys

import psutil
import pytest
from fastapi.testclient import TestClient

from flows.live import control, server, tracked
from tasks.run import paths, progress
from tasks.tracking import run_record

KEY = "host-7-1764"
PAGE = f"/runs/{KEY}"


@pytest.fixture
def client(repository):
    return TestClient(
        server.application(3.6), base_url="http://127.0.0.1:4300", follow_redirects=False
    )


def token(client):
    return re.search(r'name="token" value="([^"]+)"', client.get(PAGE).text)[1]


@pytest.fixture
def pressed(monkeypatch):
    """What the buttons did, in place of signals and processes."""
    done = []
    for name in ("stop", "proceed"):
        monkeypatch.setattr(control, name, lambda noted, name=name: done.append(name))
    return done


def test_without_a_run_the_page_says_how_to_start_one(client):
    page = client.get("/")

    assert page.status_code == 200
    assert "atelier run" in page.text


def test_the_page_has_reasons_bar_and_price_and_asks_for_nothing_elsewhere(client, run):
    with (
        run_record.stage("train", run, {"train": {"policy": 2, "frozen": 0}}),
        progress.bar("train", 60, "images", each=2) as report,
    ):
        report(30, {"loss": 0.5})
        run_record._here.write(at_once=True)
        page = client.get(PAGE)

    assert "it never ran" in page.text
    assert "train: 30 of 60" in page.text
    assert "formaction" in page.text
    addresses = re.findall(r"(?:src|href|action)=\"([^\"]+)\"", page.text)
    assert addresses
    assert [one for one in addresses if not one.startswith(("/", "#"))] == []
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy


def test_words_of_settings_are_text(client, run):
    run_record.note(run, name="<script>alert(1)</script>")

    assert "<script>alert" not in client.get(PAGE).text


def test_the_buttons_obey_the_page_alone(client, run, pressed):
    good = token(client)

    assert client.post(f"{PAGE}/stop", data={"token": "guessed"}).status_code == 403
    assert client.post(f"{PAGE}/stop").status_code == 422
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        sent = client.post(f"{PAGE}/stop", data={"token": good}, headers=headers)
        assert sent.status_code == 403
    assert client.get(f"{PAGE}/stop").status_code == 405
    assert pressed == []

    assert client.post(f"{PAGE}/stop", data={"token": good}).status_code == 303
    assert client.post(f"{PAGE}/continue", data={"token": good}).status_code == 303
    assert pressed == ["stop", "proceed"]


def test_a_name_that_leads_here_from_elsewhere_is_refused(client, run):
    assert client.get(PAGE, headers={"Host": "evil.example"}).status_code == 400


def test_a_picture_is_sent_only_if_a_page_offered_it(client, run, paint):
    picture = paint(server.paths.GENERATE / "base" / "000.png")
    with run_record.stage("generate", run, {}):
        page = client.get(PAGE).text

    (address,) = re.findall(r'<img src="([^"]+)"', page)
    assert client.get(address).content == picture.read_bytes()
    assert client.get("/picture/0123456789abcdef01234567.png").status_code == 404
    assert client.get("/picture/..%2f..%2fdvc.yaml").status_code == 404
    for other in ("%2e%2e", "..%2fparams", "nobody"):
        assert client.get(f"/runs/{other}").status_code == 404


@pytest.mark.parametrize("copied", [False, True])
def test_an_experiments_page_does_not_lead_to_the_report_of_another_run(client, run, copied):
    run_record.note(run, state="finished", copied=copied)

    assert (str(paths.PAGE.resolve()) in client.get(PAGE).text) is not copied


def test_curves_have_a_line_for_each_training_and_the_loss_is_first():
    points = [(1.0, 0.5), (2.0, 0.25)]
    known = tracked.Tracked(
        None, {"images_per_second": {"cpo": points}, "loss": {"cpo": points, "dpo": points}}, []
    )

    (title, chart), (speed, _) = server._charts(known)

    assert (title, speed) == ("loss", "images per second")
    assert "cpo from 0.5 to 0.25; dpo from 0.5 to 0.25" in chart


def test_the_name_of_mlflows_file_says_model_and_step():
    found = tracked._IMAGE.match("cpo-s grid+step+40+timestamp+1764+ab-cd.png")

    assert (found["name"], found["step"]) == ("cpo-s grid", "40")


def test_stopping_reaches_what_dvc_started_and_nothing_else(repository):
    child = "import time; time.sleep(60)"
    runner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])",
        ],
        stderr=subprocess.DEVNULL,
    )
    other = subprocess.Popen([sys.executable, "-c", child])
    process = psutil.Process(runner.pid)
    while not process.children():
        pass

    control.stop({"process": run_record.sync.ident(process)})

    # SIGTERM, later, where these tests are a background job, which ignores SIGINT.
    assert runner.wait(60) in {1, 130, -signal.SIGINT, -signal.SIGTERM}
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_run_that_is_over_is_not_stopped_twice(repository):
    control.stop({"process": f"{run_record.sync.socket.gethostname()}/1/1"})


def test_continuing_is_the_same_command_in_the_same_folder(repository):
    words = [sys.executable, "-c", "open('again', 'w').write('yes')"]

    control.proceed({"command": words, "folder": str(repository)})

    while not (repository / "again").is_file():
        pass


def test_a_command_that_is_gone_is_reported(repository):
    with pytest.raises(control.ArtifactError, match="cannot be started"):
        control.proceed({"command": ["no-such-program"], "folder": str(repository)})


@pytest.mark.parametrize(
    ("seconds", "words"), [(41.6, "42 s"), (185, "3:05 min"), (7800, "2:10 h")]
)
def test_time_spans_are_as_people_write_them(seconds, words):
    assert server.clock(seconds) == words
