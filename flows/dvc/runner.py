"""Runner of one DVC stage: supervised process, streamed output, detected outcome.

``dvc --wait-for-lock repro --single-item`` is the only form that may run beside other DVC
processes: without the first, a result is lost if another one holds the lock just when a
training ends; without the second, two of them wait for each other's upstream stages.
"""

import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.dvc import locks, supervise
from flows.dvc.stages import Meta, Stage
from tasks.run import kept

Outcome = Literal["Ran", "Committed", "RunCached", "UpToDate"]
_SAYS: dict[str, Outcome] = {
    "Running stage ": "Ran",
    "is cached - skipping run": "RunCached",
    "didn't change, skipping": "UpToDate",
}
_STEP = re.compile(r"^(?P<title>.+): step (?P<done>\d+)/(?P<total>\d+)(?: · (?P<rest>.*))?$")
_TAIL_LINES = 30
_BUSY = "is busy, it is being blocked by"  # DVC's words for a file that another dvc writes
_BUSY_SECONDS = 2.0
_LOCK = Path(".dvc/tmp/atelier-flow.lock")
_live: set[subprocess.Popen[str]] = set()
_live_lock = threading.Lock()


@dataclass(frozen=True)
class Step:
    """Where a long piece of work is, as ``tasks.run.progress`` prints it."""

    title: str
    percent: float
    rest: str


class StageFailedError(Exception):
    """A stage ended with an error; its text ends with what the stage printed last.

    Attributes:
        final: It was stopped, or a person must mend something first: no retry.
    """

    def __init__(self, stage: str, code: int, tail: list[str]) -> None:
        mistake = any(line.startswith("Error: ") for line in tail)
        self.final = mistake or code == supervise.STOPPED
        super().__init__(f"stage {stage} {_reason(code)}; it printed last:\n" + "\n".join(tail))


def run(
    stage: Stage,
    *,
    force: bool,
    more: Mapping[str, str],
    tell: Callable[[str], None],
) -> Outcome:
    """Bring one stage up to date, its needs being so already.

    Args:
        stage: What to run.
        force: Run it even if nothing changed.
        more: Variables that the stage sees beside ours.
        tell: Called with each line that DVC and the stage print.

    Raises:
        StageFailedError: DVC or the stage ended with an error, took too long, or was stopped.
    """
    words = dvc("repro", "--single-item", *["--force"] * force, stage.name)
    more = {**more, **({kept.NOTHING: "1"} if force else {})}
    locks.strike_out_the_dead()
    code, outcome, tail = _try(words, stage, more, tell)
    while code and any(_BUSY in line for line in tail):
        # --wait-for-lock waits for the repository, not for a file that a stage of another
        # dvc is writing; nothing was run, so asking again costs nothing.
        time.sleep(_BUSY_SECONDS)
        locks.strike_out_the_dead()
        code, outcome, tail = _try(words, stage, more, tell)
    if code:
        raise StageFailedError(stage.name, code, tail)
    return outcome


def command(
    name: str,
    words: list[str],
    meta: Meta | None,
    *,
    more: Mapping[str, str],
    tell: Callable[[str], None],
    folder: Path | None = None,
) -> None:
    """Run any command as supervised as a stage.

    Args:
        name: Of the command, for messages.
        words: The command.
        meta: Its limits of time; None: it has none.
        more: Variables that it sees as well as ours.
        tell: Called with each line that it prints.
        folder: Where it is run; None: here.

    Raises:
        StageFailedError: It ended with an error, took too long, or was stopped.
    """
    code, tail = _supervise(words, meta, more, tell, folder)
    if code:
        raise StageFailedError(name, code, tail)


def _try(
    words: list[str],
    stage: Stage,
    more: Mapping[str, str],
    tell: Callable[[str], None],
) -> tuple[int, Outcome, list[str]]:
    """Run DVC once; return its exit code, what it said it did, and its last lines."""
    outcomes: list[Outcome] = ["UpToDate"]

    def read(line: str) -> None:
        outcomes.extend(filter(None, [_said(line)]))
        tell(line)

    code, tail = _supervise(words, stage.meta, more, read)
    return code, outcomes[-1], tail


def _supervise(
    words: list[str],
    meta: Meta | None,
    more: Mapping[str, str],
    tell: Callable[[str], None],
    folder: Path | None = None,
) -> tuple[int, list[str]]:
    """Run a command; return its exit code and its last lines."""
    tail: list[str] = []
    with _supervised(words, meta, more, folder) as process:
        for line in _lines(process):
            tail = [*tail, line][-_TAIL_LINES:]
            tell(line)
        return process.wait(), tail


def repository_alone(tell: Callable[[str], None]) -> AbstractContextManager[None]:
    """Keep two flow runs of one repository apart."""
    return alone(_LOCK, "another flow run in this repository", tell)


@contextmanager
def alone(file: Path, other: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Keep two runs of a kind apart by a locked file; the lock dies with the process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"{other} is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def stop_all() -> None:
    """End every stage that this process runs, and wait until its processes are gone."""
    with _live_lock:
        processes = list(_live)
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()  # supervise takes that for our end
    for process in processes:
        process.wait()


def step(line: str) -> Step | None:
    """Return the step that a line of output tells of, if it does."""
    match = _STEP.match(line)
    if match is None:
        return None
    percent = 100 * int(match["done"]) / max(int(match["total"]), 1)
    return Step(match["title"], percent, match["rest"] or "")


def dvc(*words: str) -> list[str]:
    """Return the command that runs DVC and waits while another DVC holds its lock."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *words]


@contextmanager
def _supervised(
    words: list[str], meta: Meta | None, more: Mapping[str, str], folder: Path | None
) -> Iterator[subprocess.Popen[str]]:
    timeout, silence = (meta.timeout, meta.silence) if meta else (None, None)
    process = subprocess.Popen(
        supervise.command(words, timeout_seconds=timeout, silence_seconds=silence),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(more),
    )
    with _live_lock:
        _live.add(process)
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()
        with _live_lock:
            _live.discard(process)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return ours, with the `python` of dvc.yaml's commands being this one."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **more}


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")


def _said(line: str) -> Outcome | None:
    return next((outcome for words, outcome in _SAYS.items() if words in line), None)


def _reason(code: int) -> str:
    if code == supervise.TOO_LONG:
        return "took longer, or was silent for longer, than its meta in dvc.yaml allows"
    if code == supervise.STOPPED:
        return "was stopped"
    return f"failed (exit code {code})"
