import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from atelier.errors import ParamsError
from flows import sharded
from flows.__main__ import app
from tasks import paths

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("prefect_dask") is None,
    reason="Dask is absent; pip install -c constraints.txt '.[scale]'",
)
ROOT = Path(__file__).parents[2]
PICTURES, SHARDS = 160, 8


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prefect_dask", None)

    with pytest.raises(ParamsError, match=r"pip install -c constraints.txt '\.\[scale\]'"):
        sharded.runner(1, None)
    said = CliRunner().invoke(app, ["annotate", "--shards", "2"])
    assert isinstance(said.exception, ParamsError)


@needs_dask
def test_a_scheduler_that_is_not_there_is_named():
    with pytest.raises(ParamsError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers"):
        sharded.runner(1, "tcp://127.0.0.1:9")


def test_no_second_cache_and_no_retry_where_a_person_must_act():
    state = sharded.Failed(data=ParamsError("other criteria"))

    assert sharded.judge_shard.cache_policy is sharded.NO_CACHE
    assert not sharded._may_help(None, None, state)
    assert sharded._may_help(None, None, sharded.Failed(data=RuntimeError("a bad disk")))


# Kills the worker that has worked most, as soon as the first shard is in the journal.
FLOW = """
import json, os, signal, threading, time
import psutil
from pathlib import Path
from prefect.testing.utilities import prefect_test_harness
from atelier.criteria import examination
from flows import sharded
from tasks import annotate, paths, shards

def journal():
    return next(iter(paths.RESUME.glob("annotate-*/journal.jsonl")), None)

def kill():
    while journal() is None:
        time.sleep(0.02)
    workers = [
        one for one in psutil.Process().children(recursive=True)
        if "spawn_main" in " ".join(one.cmdline())
    ]
    busiest = max(workers, key=lambda one: sum(one.cpu_times()[:2]))
    busiest.send_signal(signal.SIGKILL)
    seen.update(workers=len(workers), killed=busiest.pid, before=lines())

def lines():
    return len(journal().read_text().splitlines())

if __name__ == "__main__":
    seen = {}
    with prefect_test_harness(server_startup_timeout=120):
        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        runner = sharded.runner(2, None)
        state = sharded.judge_shards.with_options(task_runner=runner)(8, return_state=True)
        thread.join(5)
    print(json.dumps(seen | {"state": state.type.value, "lines": lines()}))
"""


@needs_dask
@pytest.mark.slow
def test_a_killed_workers_shard_is_judged_by_another(tmp_path, monkeypatch, profile):
    monkeypatch.chdir(tmp_path)
    _lay_out(profile)
    _stage()
    alone = _outputs()

    Path("killing.py").write_text(FLOW)
    seen = json.loads(_python("killing.py").splitlines()[-1])

    assert seen["state"] == "COMPLETED"
    assert seen["workers"] == 2
    assert seen["before"] < PICTURES  # there was something left to lose
    assert seen["lines"] == PICTURES
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
    names = ("images", "voices", "judgements", "quarantine", "evidence")
    return [(paths.ANNOTATE / f"{name}.jsonl").read_bytes() for name in names]


def _python(*words):
    said = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=250
    )
    assert said.returncode == 0, said.stderr[-3000:]
    return said.stdout
