"""A small study on stand-in pictures, a server for it, people who answer, and a browser."""

import asyncio
import contextlib
import html
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

import httpx
import pytest
import yaml

from atelier.config.profile import Profile
from atelier.criteria import tree
from atelier.criteria.annotations import Record
from survey import files, make
from survey.app import votes
from survey.files import Painter
from survey.painters import Source
from tasks.run import paths
from tests.browser import browser, chromium  # noqa: F401 -- fixtures

PROMPTS = 6
NAME = "trial"
CRITERIA = """
domain: painting
version: "1"
literature: {}
criteria:
  light:
    name: Light and value
    about: How light and dark are distributed, before any hue.
    branches:
      contrast: {positive: strong values, negative: flat muddy tones, applies: any, sources: [],
                 positive_means: "Lights and darks are far apart.", negative_means: "Grey."}
  evil:
    name: "<script>alert('name')</script>"
    about: "\\"><img src=x onerror=alert('about')> {braces}"
    branches:
      leaf: {positive: "<b>good</b>", negative: "{{ 7 * 7 }}", applies: any, sources: [],
             positive_means: "</ul><script>alert(1)</script>", negative_means: "'\\"&"}
"""


@pytest.fixture
def wanted(profile):
    """The profile's section on which the study is made; change it before ``study``."""
    return profile["survey"]


@pytest.fixture
def study(tmp_path, monkeypatch, profile, wanted, paint):
    """A study of two painters on stand-in pictures, drawn and written as ``make`` does."""
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", votes.DATABASE):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "params/criteria").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params/profile.yaml").write_text("profile: starter\n")
    (tmp_path / "params/starter.yaml").write_text(yaml.safe_dump(profile))
    (tmp_path / "params/criteria/starter.yaml").write_text(CRITERIA)
    sources = []
    for place, name in enumerate(wanted["painters"]):
        folder = tmp_path / "stand-ins" / name
        for number in range(PROMPTS):
            paint(folder / f"{number:03}.png", 100 * place + number)
        sources.append(Source(Painter(name=name, label=f"the {name}", weights=None), folder))
    captions = ["a sea <script>alert('caption')</script>", *map(str, range(1, PROMPTS))]
    records = [
        Record(image=str(n) * 64, file=f"{n}.png", caption=caption, positive=[], negative=[])
        for n, caption in enumerate(captions)
    ]
    criteria = tree.parse(paths.CRITERIA / "starter.yaml")
    checked = Profile.model_validate(profile)
    make.write(files.folder(NAME), NAME, checked, criteria, records, sources)
    return files.study(NAME)


@pytest.fixture
def book(study):
    """The study's votes."""
    opened = votes.opened(study.name)
    yield opened
    opened.close()


@dataclass
class Server:
    """``atelier survey serve``, to be killed and started again."""

    port: int
    process: subprocess.Popen | None = None
    starts: int = 0

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", "survey", "serve", NAME, "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.starts += 1
        end = time.monotonic() + 120
        while time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.address}/health", trust_env=False).is_success:
                    return self
            if self.process.poll() is not None:
                raise AssertionError(self.process.stderr.read().decode())
            time.sleep(0.05)
        raise AssertionError("the server did not come up in two minutes")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=30)


@pytest.fixture
def server(study):
    """A server that is not started yet."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    one = Server(port)
    yield one
    one.stop()


@dataclass
class Seen:
    """A question as it stands on the screen."""

    number: int
    left: str
    right: str
    dimension: str
    form: str


@dataclass
class Person:
    """Somebody with a link, who answers what they are asked, however often the server dies."""

    address: str
    token: str
    judge: object  # Seen → "left", "same" or "right"
    acknowledged: dict[int, str] = field(default_factory=dict)  # question: answer

    async def answer_all(self, client):
        start = {"token": self.token, "agree": "yes"}
        await self._until(client, "POST", "/start", start, 303)
        while True:
            page = await self._until(client, "GET", "/question", None, 200)
            seen = read(page.text)
            if seen is None:
                return self
            choice = self.judge(seen)
            vote = {"form": seen.form, "question": str(seen.number), "choice": choice}
            await self._until(client, "POST", "/vote", vote, 303)
            self.acknowledged[seen.number] = choice

    async def _until(self, client, method, path, data, status):
        """Send a request again and again until it gets the answer that it should get."""
        for _ in range(2000):
            with contextlib.suppress(httpx.TransportError):
                answer = await client.request(
                    method,
                    self.address + path,
                    data=data,
                    headers={"Cookie": f"invitation={self.token}"},
                )
                if answer.status_code == status:
                    return answer
                assert answer.status_code in {429, 503}, (path, answer.status_code, answer.text)
            await asyncio.sleep(0.1)
        raise AssertionError(f"{path} never got {status}")


def read(page):
    """Return the question of a page, None if it is not one."""
    if 'class="question"' not in page:
        return None
    number = re.search(r'name="question" value="(\d+)"', page)[1]
    form = re.search(r'name="form" value="(\w+)"', page)[1]
    left, right = re.findall(r'src="/picture/([^"]+)"', page)
    dimension = re.search(r"</small> (.*?)</h1>", page)[1]
    return Seen(int(number), left, right, html.unescape(dimension), form)


async def _together(people):
    limits = httpx.Limits(max_connections=len(people))
    async with httpx.AsyncClient(trust_env=False, timeout=30, limits=limits) as client:
        return await asyncio.gather(*(person.answer_all(client) for person in people))


@pytest.fixture
def crowd():
    """A function that lets people answer in parallel until all are done, and returns them."""
    return lambda people: asyncio.run(_together(people))


@pytest.fixture
def person():
    """``Person``, to be made with an address, a token and a way to judge."""
    return Person


@pytest.fixture
def seen():
    """A function that reads a question from a page."""
    return read
