"""A whole repository at toy size: the real code, stages and command lines, seconds a stage.

``undisturbed`` is made once a session and shared by its processes: the repository as it is
before each stage, with how long the stage took, and after the last one.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import filelock
import psutil
import yaml

from atelier.starter import drawings
from tests.conftest import TOY_BASE, TOY_NETWORKS, small_profile

ROOT = Path(__file__).parents[2]
STAGES = ("annotate", "split", "sft", "cpo", "generate", "evaluate", "report")
PAINTINGS = 40
STEPS = 12
DONE = "undisturbed.json"
_PACKAGES = ("atelier", "cli", "flows", "survey", "tasks")
_CODE = (
    *_PACKAGES,
    "labels",
    "certificates",
    "loras",
    "params/criteria",
    "base/starter",
)


def build(folder, vlm=None):
    """Write params, pictures, code and a base; nothing is judged or learned yet."""
    folder.mkdir(parents=True)
    for name in _CODE:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "params/profile.yaml").write_text("profile: toy\n")
    (folder / "params/toy.yaml").write_text(yaml.safe_dump(profile(vlm)))
    _draw(folder / "data")
    python(folder, "-m", "tasks", "base")
    shutil.rmtree(folder / "artifacts")
    python(folder, "-m", "dvc", "init", "-q", "--no-scm")
    # MLflow's tables take seconds to make, and no stage is about that.
    python(
        folder,
        "-c",
        "from tasks.tracking import connection; connection.client().search_experiments()",
    )
    repro("code", folder)
    return folder


def profile(vlm=None):
    """The profile of the workshop: the tests' small one, for the starter's drawings."""
    values = small_profile()
    training = {**values["sft"]["training"], "steps": STEPS, "checkpoint_steps": 2}
    values["model"] |= {"source": "base/toy", "text_tokens": 16}
    values["base"] = {
        **yaml.safe_load(TOY_BASE),
        "network": yaml.safe_load(TOY_NETWORKS["flux"]),
        "training": {**training, "steps": 3},
    }
    values["sft"]["training"] = training
    values["cpo"]["training"] = training
    if vlm is not None:
        values["annotate"] |= {"annotator": "vlm", "vlm": vlm}
    return values


def _draw(folder):
    folder.mkdir()
    rows = ["file,caption,artwork"]
    for number, drawing in enumerate(drawings.paintings(PAINTINGS, 7)):
        (folder / f"{number:03}.png").write_bytes(drawings.png(drawing.pixels))
        rows.append(f'{number:03}.png,"{drawing.caption}",{number:03}')
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")


def environment(**more):
    """What a stage sees: one thread, this Python first, nobody's servers."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {
        **mine,
        "PATH": path,
        "PYTHONPATH": "",  # the code that lies in the folder
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **more,
    }


def start(folder, *words, **more):
    """Start Python in a session of its own, its output in a file."""
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=environment(**more),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def python(folder, *words, timeout=900, **more):
    """Run Python to its end, which is to be a good one; return what it said."""
    process = start(folder, *words, **more)
    code = process.wait(timeout)
    said = (folder / "said.txt").read_text()
    assert code == 0, f"{' '.join(words)} ended with {code}:\n{said[-4000:]}"
    return said


def repro(stage, folder, **more):
    """Run one stage by DVC, its needs being up to date."""
    return python(folder, "-m", "dvc", "repro", "--single-item", stage, **more)


def kill(process, seconds, *, group_only=False):
    """``kill -9`` a process with all it started after some seconds.

    Returns:
        Whether it was still at work.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    if process.poll() is not None:
        return False
    family = [] if group_only else psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, 30)
    process.wait(30)
    return True


def undisturbed(shared, vlm=None, name="workshop"):
    """Return the folder of states: ``before-<stage>``, ``after`` and the seconds by stage."""
    folder = shared / name
    shared.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(shared / f"{name}.lock"):
        if not (folder / DONE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _run_all(folder, vlm)
    return folder


def _run_all(folder, vlm):
    at_work = build(folder / "at-work", vlm)
    seconds = {}
    for stage in STAGES if vlm is None else ("annotate",):
        shutil.copytree(at_work, folder / f"before-{stage}")
        began = time.monotonic()
        repro(stage, at_work)
        seconds[stage] = time.monotonic() - began
    at_work.rename(folder / "after")
    (folder / DONE).write_text(json.dumps(seconds))


def copied(folder, stage, to):
    """Put the state before ``stage`` at ``to``, with an MLflow that knows no run."""
    shutil.copytree(folder / f"before-{stage}", to)
    mlflow = to / "artifacts/mlflow"
    shutil.rmtree(mlflow)
    shutil.copytree(folder / "before-annotate/artifacts/mlflow", mlflow)
    return to


def seconds(folder):
    """How long each stage took, undisturbed."""
    return json.loads((folder / DONE).read_text())


def outputs(folder, *stages):
    """Every byte that the stages left, by file."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for stage in stages or STAGES
        for file in sorted((folder / "artifacts" / stage).rglob("*"))
        if file.is_file()
    }


def leftovers(folder):
    """What a finished pipeline has no use for: half-written files, interrupted work."""
    artifacts = folder / "artifacts"
    wrong = ("*.partial", "*.new", "*.tmp", "*.damaged", "*-journal", "*.copying")
    found = [path for name in wrong for path in artifacts.rglob(name)]
    found += list((artifacts / "resume").glob("*"))
    return [path.relative_to(folder).as_posix() for path in found]


def held_locks(folder):
    """Locks that somebody holds, or that DVC would believe to be held."""
    files = [*(folder / "artifacts").rglob("locks/*"), folder / "artifacts/mlflow/.lock"]
    files += [folder / ".dvc/tmp/lock", folder / ".dvc/tmp/rwlock.lock"]
    held = [file for file in files if file.is_file() and not _free(file)]
    noted = folder / ".dvc/tmp/rwlock"
    if noted.is_file() and any(map(psutil.pid_exists, _pids(json.loads(noted.read_text())))):
        held.append(noted)  # a process that is gone holds nobody up
    return [path.relative_to(folder).as_posix() for path in held]


def _free(file):
    with file.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def runs(folder):
    """Every run of the folder's MLflow: its stage, or None for a pipeline's, and status."""
    with contextlib.closing(sqlite3.connect(folder / "artifacts/mlflow/mlflow.db")) as base:
        return base.execute(
            "select tags.value, runs.status from runs left join tags "
            "on tags.run_uuid = runs.run_uuid and tags.key = 'stage' order by start_time"
        ).fetchall()


def _pids(noted):
    for several in noted.get("read", {}).values():
        yield from (who["pid"] for who in several)
    yield from (who["pid"] for who in noted.get("write", {}).values())
