"""Speed of the measured annotator on one core, and of the agent against its server."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from skimage.color import rgb2lab

from atelier import images
from atelier.annotators import measured
from atelier.annotators.vlm.agent import Agent, criteria_name
from atelier.annotators.vlm.response_cache import ResponseCache
from atelier.annotators.vlm.walk import VLMRequest
from atelier.config.annotation import VLMParams
from atelier.criteria.tree import parse
from atelier.reporting import silent
from benchmarks import measures
from benchmarks.lines import Goal, Line, Size

SECTION = "annotation"
_ROOT = Path(__file__).parents[1]
_PICTURES: Mapping[Size, int] = {"full": 40, "tiny": 2}
_LATENCY: Mapping[Size, float] = {"full": 1.0, "tiny": 0.02}
_ASKED: Mapping[Size, int] = {"full": 160, "tiny": 4}
_AT_ONCE = 8


def lines(size: Size) -> Iterator[Line]:
    """Measure both annotators."""
    yield from _measured(size)
    yield _agent(size)


def _measured(size: Size) -> Iterator[Line]:
    tree, made = parse(measures.TREE), measures.pictures(_PICTURES[size])
    count = len(measured.measured(tree))
    judging = measures.seconds(lambda picture: measured.judge(picture, tree), made)
    converting = measures.seconds(lambda one: rgb2lab(one[::4, ::4] / 255.0), made)
    yield Line(
        SECTION, f"{count} measures of a picture of 512 x 512, one core",
        1 / judging, "images/s", "skimage's conversion of 128 x 128 pixels to Lab",
        1 / converting, converting / judging, Goal("figure", "≥", 100),
        note="CPU seconds",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, pixels in enumerate(made):
            files.append(Path(folder) / f"{number}.jpg")
            Image.fromarray(pixels).save(files[-1], quality=90)

        def whole(file: Path) -> None:
            images.sha256(file)
            measured.judge(images.square(images.read(file, 10**8), 512), tree)

        def read(file: Path) -> None:
            images.square(images.read(file, 10**8), 512)

        every, reading = measures.seconds(whole, files), measures.seconds(read, files)
    yield Line(
        SECTION, "the same from JPEG files: read, cropped, hashed, judged",
        1 / every, "images/s", "reading and cropping alone", 1 / reading,
        reading / every, None, note="CPU seconds",
    )  # fmt: skip


def _agent(size: Size) -> Line:
    """Throughput on the tests' own model server, which answers after a fixed time."""
    latency = _LATENCY[size]
    tree = parse(_ROOT / "params" / "criteria" / "starter.yaml")
    with tempfile.TemporaryDirectory() as name, _server() as address:
        folder = Path(name)
        requests = []
        for number, pixels in enumerate(measures.pictures(_ASKED[size], side=64)):
            file = folder / f"{number}.png"
            file.write_bytes(images.png(pixels))
            requests.append(VLMRequest(images.sha256(file), file, None))
        _call(f"{address}/script", {"latency": latency})
        params = VLMParams.model_validate(_PARAMS | {"base_url": f"{address}/v1"})
        with ResponseCache(folder / "answers.jsonl", criteria_name(tree)) as cache:
            agent = Agent(tree, params, cache, largest_pixels=10**8)
            start = time.perf_counter()
            agent.consult(requests, silent)
            seconds = time.perf_counter() - start
        told = _call(f"{address}/asked", None)
    rate, limit = told["asked"] / seconds, _AT_ONCE / latency
    held = told["held"] / told["asked"]
    return Line(
        SECTION, f"the agent: requests a second, {_AT_ONCE} at once",
        rate, "requests/s", f"as many at once over the server's {latency:g} s", limit,
        rate / limit, Goal("ratio", "≥", 0.95),
        note=f"the server itself took {held:.3g} s: {rate * held / _AT_ONCE:.1%} of that",
    )  # fmt: skip


_PARAMS: dict[str, Any] = {
    "model": "toy-vl",
    "key_variable": None,
    "answers": "json_schema",
    "activation": "at_once",
    "concurrency": _AT_ONCE,
    "timeout_seconds": 30.0,
    "tries": 3,
    "longest_wait_seconds": 1.0,
    "pixels": 64,
    "criteria_per_call": 30,
    "votes": 1,
    "temperature": 0.0,
    "max_tokens": 4096,
    "max_tokens_name": "max_tokens",
    "write_captions": False,
    "image_tokens": 100,
    "prompt_price": 1.0,
    "completion_price": 10.0,
    "cost_cap": None,
}


@contextmanager
def _server() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(_ROOT / "tests" / "model_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.communicate(timeout=30)


def _call(address: str, content: object) -> Any:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)
