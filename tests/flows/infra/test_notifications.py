"""Messages to one address: Prefect's automations, a local receiver, a real server."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from atelier.errors import ParamsError
from flows.infra import notifications

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "address", ["ana@example.org", "mailto:ana@example.org", "https://", ""]
)
def test_what_is_no_webhook_is_refused(address):
    with pytest.raises(ParamsError, match="is no webhook"):
        list(notifications.setup(address))


@pytest.fixture
def receiver():
    """A program that takes messages; its address and what it got."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            got.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    server.server_close()


@pytest.fixture
def prefect(tmp_path):
    """A Prefect server with all its services; the variables of its clients."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    mine = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    mine |= {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(ROOT),
    }
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *words], env=mine, stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        end = time.monotonic() + 200
        while not answers(f"{url}/health"):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.5)
        yield mine | {"PREFECT_API_URL": url}
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


RUNS = """
import sys
from prefect import flow, tags
from flows import nightly
from flows.infra import notifications

for _ in range(2):
    list(notifications.setup(sys.argv[1]))

@flow
def night():
    nightly._emit(["the champion is theta/2, and was theta/1"])

@flow
def broken():
    raise RuntimeError("the disk is full")

night.with_options(flow_run_name="a surprising night")()
with tags("atelier"):
    broken.with_options(flow_run_name="a failing run")(return_state=True)
broken.with_options(flow_run_name="of somebody else")(return_state=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_surprising_night_and_a_failed_run_arrive_at_the_address(receiver, prefect):
    address, got = receiver

    subprocess.run([sys.executable, "-c", RUNS, address], env=prefect, check=True, cwd=ROOT)

    end = time.monotonic() + 120
    while len(got) < 2 and time.monotonic() < end:
        time.sleep(0.5)
    time.sleep(5)  # for one that should not come
    texts = sorted(one["text"] for one in got)
    assert len(texts) == 2, texts
    assert texts[0].startswith("a failing run: Failed\n")
    assert "the disk is full" in texts[0]
    assert texts[1].startswith("a surprising night\nthe champion is theta/2, and was theta/1\n")
    assert "/runs/flow-run/" in texts[1] or "/flow-runs/flow-run/" in texts[1]
    assert all(one["text"] == one["content"] for one in got)
