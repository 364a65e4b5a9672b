"""Run record: what a pipeline's run was asked and where its stages are, for its live page.

Files below ``paths.LIVE``, one folder for each run of the pipeline::

    <run>/run.json       who runs it, by which command; a flow adds the plan and its outcomes
    <run>/cpo.json       a stage's process, its times, its progress bars

A flow writes ``run.json`` before its first stage; under a plain ``dvc repro`` the first stage
does. A disk that is full or a folder that is read-only costs the page alone.
"""

import contextlib
import dataclasses
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from atelier import atomic
from atelier.errors import DiskError
from atelier.reporting import Report, silent
from tasks.run import paths
from tasks.tracking import sync

RUN = "run.json"
_SECONDS_BETWEEN_NOTES = 1.0
_alone = threading.Lock()  # a flow's stages are threads of one process


def folder(run: str) -> Path:
    """Return the folder of a run of the pipeline, whose name is ``run`` in MLflow."""
    return paths.LIVE / re.sub(r"[^A-Za-z0-9.-]+", "-", run)


def begin(run: str, process: psutil.Process, where: Path, **more: Any) -> None:
    """Note a run, unless it is noted.

    Args:
        run: Its name in MLflow.
        process: The one that ends all of it when it is stopped.
        where: The root of the repository in which its command was started.
        more: What a flow knows besides.
    """
    if (folder(run) / RUN).is_file():
        return
    note(
        run,
        run=run,
        began=time.time(),
        process=sync.ident(process),
        command=process.cmdline(),
        folder=str(where),
        **more,
    )


def note(run: str, /, **values: Any) -> None:
    """Add to what is noted of a run; a dict adds to the dict of that name."""
    with _alone:
        known = read(folder(run) / RUN)
        for name, value in values.items():
            known[name] = known.get(name, {}) | value if isinstance(value, dict) else value
        _write(folder(run) / RUN, known)


def read(file: Path) -> dict[str, Any]:
    """Return what a file of the record says; nothing where it is absent or damaged."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def stage(name: str, run: str, passes: Mapping[str, Any]) -> Iterator[None]:
    """Record a stage of a run, which this process is, with the bars that it shows.

    Args:
        name: Of the stage.
        run: Its name in MLflow.
        passes: What a step of a bar costs the network, by the bar's title.
    """
    global _here
    _here = _Stage(name, folder(run) / f"{name}.json", passes)
    _here.write(at_once=True)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _here.end("stopped")
        raise
    except BaseException:
        _here.end("failed")
        raise
    else:
        _here.end("finished")
    finally:
        _here = None


def bar(title: str, total: int, rate: Callable[[], float | None], *, trains: bool) -> Report:
    """Return what records a bar of the stage that this process is; silent in no stage.

    Args:
        title: Of the bar.
        total: Its steps.
        rate: Steps a second, once it is known.
        trains: Its first report follows its first step; others report where they begin.
    """
    here = _here
    if here is None:
        return silent
    shown = _Bar(title, total, began=time.time())
    here.bars.append(shown)

    def record(done: int, values: Mapping[str, float]) -> None:
        if shown.first is None:
            shown.first = max(done - trains, 0)
        shown.done, shown.rate = done, rate()
        if "cost" in values and shown.cost_before is None:
            shown.cost_before = values["cost"]
        shown.values |= {name: float(value) for name, value in values.items()}
        shown.moved = time.time()
        here.write(at_once=done == total)

    return record


@dataclasses.dataclass
class _Bar:
    """One progress bar.

    Attributes:
        first: The steps that were done as this run began: a resumed training has some.
        cost_before: What answers of a model had cost by then, where they are counted.
    """

    title: str
    total: int
    began: float
    done: int = 0
    first: int | None = None
    cost_before: float | None = None
    rate: float | None = None
    moved: float = 0.0
    values: dict[str, float] = dataclasses.field(default_factory=dict)


class _Stage:
    """A stage as its file says it."""

    def __init__(self, name: str, file: Path, passes: Mapping[str, Any]) -> None:
        self.bars: list[_Bar] = []
        self._file, self._written = file, 0.0
        self._told: dict[str, Any] = {
            "stage": name,
            "process": sync.ident(psutil.Process()),
            "folder": str(Path.cwd()),
            "began": time.time(),
            "passes": passes,
        }

    def end(self, state: str) -> None:
        self._told |= {"ended": time.time(), "state": state}
        self.write(at_once=True)

    def write(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if not at_once and now - self._written < _SECONDS_BETWEEN_NOTES:
            return
        self._written = now
        bars = [dataclasses.asdict(one) for one in self.bars]
        _write(self._file, self._told | _used() | {"bars": bars})


_here: _Stage | None = None


def _used() -> dict[str, float]:
    """Return the processor's seconds of this process and of those it ended; its GPUs."""
    spent = os.times()
    count = int(os.environ.get("WORLD_SIZE", "1"))  # processes that train together, all alike
    torch = sys.modules.get("torch")
    gpus = count if torch is not None and torch.cuda.is_initialized() else 0
    seconds = count * (spent.user + spent.system) + spent.children_user + spent.children_system
    return {"cpu_seconds": round(seconds, 2), "gpus": gpus}


def _write(file: Path, values: Mapping[str, Any]) -> None:
    with contextlib.suppress(DiskError, OSError):
        atomic.write(file, json.dumps(values))
