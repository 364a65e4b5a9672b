"""DVC's remote down, slow, broken while results are pushed and pulled, then back."""

import asyncio
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from aiohttp import web

from atelier.errors import ArtifactError
from flows.infra import remote_stage
from tests.faults.proxy import Proxy

SECTION = "Servers away"
FATES = ("down", "500", "drop", "lost", "slow", "hang", "dribble")
PUSHED = ("down", "500", "lost", "hang")
LIMIT = 8.0  # seconds, in place of two hours


class Shelf:
    """An HTTP server that keeps what is put there."""

    def __init__(self, folder):
        self._folder, self.port = folder, None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(30)
        return self

    def __exit__(self, *error):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self):
        app = web.Application(client_max_size=2**28)
        app.router.add_route("*", "/{name:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def _answer(self, request):
        file = self._folder / request.match_info["name"]
        if request.method in {"PUT", "POST"}:
            content = await request.read()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            return web.Response()
        if not file.is_file():
            return web.Response(status=404)
        return web.FileResponse(file)


def dvc(*words):
    subprocess.run([sys.executable, "-m", "dvc", *words, "-q"], check=True)


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A repository with one finished stage, and a remote behind a proxy."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    place = tmp_path / "repository"
    place.mkdir()
    monkeypatch.chdir(place)
    Path("dvc.yaml").write_text("stages:\n  make:\n    cmd: seq 2000 > out\n    outs: [out]\n")
    dvc("init", "--no-scm")
    dvc("repro")
    with Shelf(tmp_path / "shelf") as shelf, Proxy(shelf.port) as proxy:
        dvc("remote", "add", "-d", "shelf", f"{proxy.address}/files")
        dvc("remote", "modify", "shelf", "method", "PUT")
        proxy.shelf = tmp_path / "shelf"
        proxy.seconds = 0.2
        yield proxy


@pytest.mark.timeout(400)
def test_a_push_or_pull_fails_with_a_paragraph_and_the_next_one_goes_on(
    remote, monkeypatch, figure
):
    made = Path("out").read_bytes()
    longest, said = 0.0, []

    def tried(fate, *words):
        nonlocal longest
        remote.down() if fate == "down" else remote.all(fate)
        began = time.monotonic()
        with monkeypatch.context() as hasty:
            hasty.setattr(remote_stage, "_REMOTE_SECONDS", LIMIT)
            try:
                remote_stage._dvc(*words)
            except ArtifactError as error:
                said.append(str(error))
        longest = max(longest, time.monotonic() - began)
        remote.mend()
        remote_stage._dvc(*words)

    for fate in FATES:
        if fate in PUSHED:
            shutil.rmtree(remote.shelf, ignore_errors=True)
            tried(fate, "push", "--quiet")
            files = [file for file in remote.shelf.rglob("*") if file.is_file()]
            assert [file.read_bytes() for file in files] == [made]
        shutil.rmtree(".dvc/cache")
        Path("out").unlink()
        tried(fate, "pull", "--quiet")
        assert Path("out").read_bytes() == made, fate
    assert len(said) >= 6
    assert all(re.match(r"dvc pu(sh|ll) ", error) for error in said)
    assert not any("Traceback" in error or len(error) > 1500 for error in said)
    figure(
        SECTION,
        f"DVC's remote {', '.join(FATES)} while a result is pulled, and {', '.join(PUSHED)} "
        "while it is pushed, then back "
        f"({remote.faults:,} requests met it)",
        len(FATES) + len(PUSHED),
        f"{len(said)} ended in one paragraph, after {longest:.0f} s at most (our limit: "
        f"{LIMIT:.0f} s); the next try brought the same bytes",
    )
