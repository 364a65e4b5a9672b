import contextlib
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from atelier.errors import ParamsError
from cli.app import app
from flows import sharded
from flows.dvc import stages
from flows.infra import gpus
from tasks.run import paths

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("prefect_dask") is None,
    reason="Dask is absent; pip install -c constraints.txt -e '.[scale]'",
)
ROOT = Path(__file__).parents[2]
PICTURES, SHARDS = 160, 8


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prefect_dask", None)

    with pytest.raises(ParamsError, match=r"pip install -c constraints.txt -e '\.\[scale\]'"):
        sharded.runner(1, None)
    for stage in ("annotate", "generate"):
        said = CliRunner().invoke(app, ["run", stage, "--shards", "2"])
        assert said.exit_code == 2
        assert "pip install -c constraints.txt" in said.stderr


@needs_dask
def test_a_scheduler_that_is_not_there_is_named():
    with pytest.raises(ParamsError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers"):
        sharded.runner(1, "tcp://127.0.0.1:9")


def test_no_second_cache_and_no_retry_where_a_person_must_act():
    state = sharded.Failed(data=ParamsError("other criteria"))

    for task in (sharded.judge_shard, sharded.paint_shard):
        assert task.cache_policy is sharded.NO_CACHE
    assert not sharded._may_help(None, None, state)
    assert sharded._may_help(None, None, sharded.Failed(data=RuntimeError("a bad disk")))


def _gpus(monkeypatch, *indices):
    found = [gpus.Device(index, "a GPU", 80, 80) for index in indices]
    monkeypatch.setattr(gpus, "devices", lambda: found or [gpus._cpu()])


GENERATE = stages.Stage(
    name="generate",
    needs=(),
    outs=(),
    about="",
    meta=stages.Meta(gpu=1, memory=1, retries=0, timeout=1, silence=1),
)


def test_each_worker_that_is_started_here_holds_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus, "ensure_limit", lambda: None)
    monkeypatch.setattr(gpus, "_folder", lambda: tmp_path)
    monkeypatch.setattr(sharded, "get_run_logger", lambda: logging.getLogger())
    _gpus(monkeypatch, "0", "2")

    with sharded._devices(GENERATE, 2, None) as each:
        assert each == [{gpus.VISIBLE: "0"}, {gpus.VISIBLE: "2"}]
        with contextlib.ExitStack() as other:
            assert gpus._take(GENERATE.meta, other) == []  # nobody else gets one
    with (
        pytest.raises(ParamsError, match="--workers 3: each needs its own GPU, and there"),
        sharded._devices(GENERATE, 3, None),
    ):
        pass
    with sharded._devices(GENERATE, 3, "tcp://127.0.0.1:8786") as each:
        assert each == []  # whoever started them gave them their devices
    _gpus(monkeypatch)
    with sharded._devices(GENERATE, 3, None) as each:
        assert each == []


@needs_dask
@pytest.mark.slow
def test_workers_see_their_own_variables():
    with sharded.runner(2, None, [{"ATELIER_SEEN": "a"}, {"ATELIER_SEEN": "b"}]) as runner:
        seen = runner.client.run(lambda: __import__("os").environ["ATELIER_SEEN"])

    assert sorted(seen.values()) == ["a", "b"]


# Kills the worker that has worked most, as soon as something of a shard was taken in.
FLOW = """
import json, signal, sys, threading, time
import psutil
from prefect.testing.utilities import prefect_test_harness
from flows import sharded
from flows.dvc import stages
from flows.infra import gpus
from tasks.run import paths

def done():
    journals = paths.RESUME.glob("annotate-*/journal.jsonl")
    judged = [line for file in journals for line in file.read_text().splitlines()]
    return len(judged) + len(list(paths.RESUME.glob("generate-*/pictures/*.png")))

def kill():
    while not done():
        time.sleep(0.02)
    workers = [
        one for one in psutil.Process().children(recursive=True)
        if "spawn_main" in " ".join(one.cmdline())
    ]
    busiest = max(workers, key=lambda one: sum(one.cpu_times()[:2]))
    busiest.send_signal(signal.SIGKILL)
    seen.update(workers=len(workers), killed=busiest.pid, before=done())

if __name__ == "__main__":
    seen = {}
    with prefect_test_harness(server_startup_timeout=120):
        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        runner = sharded.runner(2, None)
        spread = getattr(sharded, sys.argv[1]).with_options(task_runner=runner)
        state = spread(8, return_state=True)
        thread.join(5)
    print(json.dumps(seen | {"state": state.type.value, "done": done()}))
"""


@needs_dask
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_workers_batches_are_painted_by_another(gallery, profile):
    profile["generate"] |= {"steps": 150}  # so that there is something left to lose
    paths.profile("toy").write_text(yaml.safe_dump(profile))
    _python("-m", "tasks", "generate")
    alone = _painted()
    shutil.rmtree(paths.GENERATE)  # as dvc does

    Path("killing.py").write_text(FLOW)
    seen = json.loads(_python("killing.py", "paint_shards").splitlines()[-1])

    assert seen["state"] == "COMPLETED"
    assert seen["workers"] == 2
    assert seen["before"] < len(alone)
    assert seen["done"] == len(alone)
    _python("-m", "tasks", "generate")
    assert _painted() == alone


def _painted():
    return {file.as_posix(): file.read_bytes() for file in paths.GENERATE.rglob("*.png")}


@needs_dask
@pytest.mark.slow
def test_a_killed_workers_shard_is_judged_by_another(tmp_path, monkeypatch, profile):
    monkeypatch.chdir(tmp_path)
    _lay_out(profile)
    _stage()
    alone = _outputs()

    Path("killing.py").write_text(FLOW)
    seen = json.loads(_python("killing.py", "judge_shards").splitlines()[-1])

    assert seen["state"] == "COMPLETED"
    assert seen["workers"] == 2
    assert seen["before"] < PICTURES  # there was something left to lose
    assert seen["done"] == PICTURES
    _stage()
    assert _outputs() == alone


def _lay_out(profile):
    paths.CRITERIA.mkdir(parents=True)
    criteria = (ROOT / paths.CRITERIA / "starter.yaml").read_bytes()
    (paths.CRITERIA / "starter.yaml").write_bytes(criteria)
    profile["annotate"] |= {"captions": None}
    profile["model"] |= {"pixels": 256}
    paths.SWITCH.write_text("profile: starter\n")
    paths.profile("starter").write_text(yaml.safe_dump(profile))
    paths.DATA.mkdir()
    for seed in range(PICTURES):
        coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((256, 256), Image.Resampling.NEAREST)
        picture.save(paths.DATA / f"{seed:03}.png")


def _stage():
    """Run the stage as dvc.yaml does; it goes on from the journal, if there is one."""
    _python("-m", "tasks", "annotate")


def _outputs():
    names = ("images", "raw_judgements", "judgements", "quarantine", "rationale")
    return [(paths.ANNOTATE / f"{name}.jsonl").read_bytes() for name in names]


def _python(*words):
    said = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=250
    )
    assert said.returncode == 0, said.stderr[-3000:]
    return said.stdout
