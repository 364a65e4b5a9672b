"""MLflow sync of local runs to a server: ``python -m tasks.tracking.sync``, with each stage.

Stages write their runs to MLflow's SQLite file of this repository. Each run that has not
arrived whole at the server has a file in ``FOLDER``, which says how much of it has. ``deliver``
copies what is new. The process beside a stage does so every few seconds and at its end; what
has not arrived then waits for the next time.

What is sent may arrive although its answer is lost, and is sent again. Each point bears the
time at which it was logged, and each run a tag that is its own, so nothing is there twice.
"""

import contextlib
import fcntl
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from atelier import atomic
from tasks.run import paths
from tasks.tracking import connection

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

FOLDER = paths.MLFLOW / "undelivered"
PIPELINE, STUDY = "atelier.pipeline", "atelier.study"  # tags by which runs are found, or
_RUN = "atelier.run"  # this one, with the run's id in the repository's file
PROCESS = "atelier.process"  # the tag that says which process writes a run
PARENT = "mlflow.parentRunId"
_SECONDS = 3.0  # between two looks at what is new
_ANSWER_SECONDS = 30.0  # so long the end of a stage waits for the next answer,
_LONGEST_SECONDS = 600.0  # and for all of them together,
_STOPPED_SECONDS = 5.0  # or where a person waits for the stage to stop
_BYTES_A_SECOND = 100_000  # the slowest upload that is waited for
_POINTS, _PARAMS = 500, 100  # sent at once: MLflow takes 1000 and 100


class Process:
    """The process that copies runs to the server while a stage works."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tasks.tracking.sync"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def finish(self, *, stopped: bool) -> bool:
        """Say that the stage has ended; return whether all of it arrived in time.

        Args:
            stopped: A person waits for the stage to stop.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as pipe:
            pipe.write(b"the end\n")
        began = answered = time.monotonic()
        end = began + (_STOPPED_SECONDS if stopped else _LONGEST_SECONDS)
        last, patience = _progress(), _ANSWER_SECONDS
        while self._process.poll() is None and time.monotonic() < min(end, answered + patience):
            time.sleep(0.02)
            if (after := _progress()) != last:
                last, answered = after, time.monotonic()
                patience = _ANSWER_SECONDS + after[1] / _BYTES_A_SECOND
        self._process.kill()
        return self._process.wait() == 0


def _progress() -> tuple[int, int]:
    """Return when something was last sent from here, and the bytes of the file on its way."""
    try:
        at, file = max((file.stat().st_mtime_ns, file) for file in waiting())
        return at, int(json.loads(file.read_text(encoding="utf-8")).get("sending", 0))
    except (OSError, ValueError):  # none yet, or removed a moment ago
        return 0, 0


def waiting() -> list[Path]:
    """Return the files of the runs that the server has not whole, the oldest first."""
    return sorted(FOLDER.glob("*.json")) if connection.is_away() else []


def wait_for(run: "Run") -> None:
    """Note that a run is to be copied to the server, if MLflow is one."""
    file = FOLDER / f"{run.info.start_time}-{run.info.run_id}.json"
    if connection.is_away() and not file.is_file():
        atomic.write(file, "{}")


def deliver(*, patiently: bool = False) -> int:
    """Copy what is new of the runs that wait to the server; return how many have arrived whole.

    Args:
        patiently: Wait while another process copies runs, instead of leaving it to that.

    Raises:
        Exception: MLflow's, if it is away; what has arrived is not sent again.
    """
    if not waiting():
        return 0
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if patiently else fcntl.LOCK_NB))
        except BlockingIOError:
            return 0
        here, there = connection.client(here=True), connection.client()
        return sum(
            _Copy(here, there, file).bring() for file in waiting() if _is_here(here, file)
        )


def _is_here(here: "MlflowClient", file: Path) -> bool:
    """Say whether the run of a file is in the repository's file; else forget it."""
    from mlflow.exceptions import MlflowException

    try:
        here.get_run(_ident_of(file))
    except MlflowException:  # somebody removed it
        file.unlink()
        return False
    return True


def _ident_of(file: Path) -> str:
    return file.stem.partition("-")[2]


class _Copy:
    """One run, and how much of it has arrived."""

    def __init__(self, here: "MlflowClient", there: "MlflowClient", file: Path) -> None:
        self._here, self._there, self._file = here, there, file
        self._run = here.get_run(_ident_of(file))
        self._sent: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))

    def bring(self) -> bool:
        """Send what is new; return whether the run has ended and is there whole."""
        from mlflow.entities import RunTag

        if "run" not in self._sent:
            self._note(run=self._copied(self._run))
        run, known = self._sent["run"], self._sent.get("tags", {})
        tags = {
            k: v for k, v in self._run.data.tags.items() if k != PARENT and known.get(k) != v
        }
        if tags:
            self._there.log_batch(run, tags=[RunTag(*tag) for tag in tags.items()])
            self._note(tags=known | tags)
        for name in self._run.data.metrics:
            for points in self._points(name):
                self._there.log_batch(run, metrics=points)
                sent = self._sent.get("points", {})
                self._note(points=sent | {name: sent.get(name, 0) + len(points)})
        for file, state in self._files():
            self._note(sending=state[0])
            place = file.parent.as_posix() if len(file.parts) > 1 else None
            self._there.log_artifact(run, str(self._folder() / file), place)
            self._note(sending=0, files=self._sent.get("files", {}) | {str(file): state})
        if self._run.info.status == "RUNNING":
            return False
        self._there.set_terminated(run, self._run.info.status, self._run.info.end_time)
        self._file.unlink()
        return True

    def _copied(self, run: "Run") -> str:
        """Return the copy of a run, made if need be, below that of its parent."""
        tags = dict(run.data.tags)
        if PARENT in tags:
            tags[PARENT] = self._copied(self._here.get_run(tags[PARENT]))
        experiment = self._here.get_experiment(run.info.experiment_id).name
        at = connection.experiment(self._there, experiment.removeprefix("atelier-"))
        keys = [(key, tags[key]) for key in (PIPELINE, STUDY) if key in tags]
        key = (*keys, (_RUN, run.info.run_id))[0]
        copy = made_once(
            self._there, at, key, name=run.info.run_name, tags=tags, started=run.info.start_time
        )
        there = self._there.get_run(copy)
        log_params(self._there, copy, run.data.params, list(there.data.params))
        if run.inputs.dataset_inputs and not there.inputs.dataset_inputs:
            self._there.log_inputs(copy, run.inputs.dataset_inputs)
        if run.info.status == "RUNNING":
            self._there.update_run(copy, status="RUNNING")
        return copy

    def _points(self, name: str) -> "Iterator[list[Metric]]":
        """Yield the points of a curve that were not sent, as many at once as MLflow takes."""
        from mlflow.utils.search_utils import SearchUtils

        store = self._here._tracking_client.store  # its client returns all points alone
        while True:
            sent = self._sent.get("points", {}).get(name, 0)
            token = SearchUtils.create_page_token(sent) if sent else None
            points = store.get_metric_history(self._run.info.run_id, name, _POINTS, token)
            if not points:
                return
            yield list(points)

    def _folder(self) -> Path:
        from mlflow.utils.file_utils import local_file_uri_to_path

        return Path(local_file_uri_to_path(self._run.info.artifact_uri))

    def _files(self) -> Iterator[tuple[Path, list[int]]]:
        """Yield the files that are new or changed, with size and time."""
        known = self._sent.get("files", {})
        for file in sorted(self._folder().rglob("*")):
            name, stat = file.relative_to(self._folder()), file.stat()
            state = [stat.st_size, stat.st_mtime_ns]
            if file.is_file() and known.get(str(name)) != state:
                yield name, state

    def _note(self, **sent: Any) -> None:
        self._sent |= sent
        atomic.write(self._file, json.dumps(self._sent))


def made_once(
    mlflow: "MlflowClient",
    at: str,
    key: tuple[str, str],
    *,
    name: str,
    tags: Mapping[str, str],
    started: int,
) -> str:
    """Return the run with the tag ``key``, made if need be.

    MLflow's client asks again where no answer came, though the first run may be made.
    """
    known = sole(mlflow, at, key)
    if known is None:
        every = dict([key]) | dict(tags)
        made = mlflow.create_run(at, run_name=name, tags=every, start_time=started)
        known = sole(mlflow, at, key) or str(made.info.run_id)
    return known


def sole(mlflow: "MlflowClient", at: str, key: tuple[str, str]) -> str | None:
    """Return the run with this tag; delete others with the same."""
    found = mlflow.search_runs(
        [at], f"tags.`{key[0]}` = '{key[1]}'", order_by=["attributes.start_time ASC"]
    )
    for double in found[1:]:
        mlflow.delete_run(double.info.run_id)
    return str(found[0].info.run_id) if found else None


def log_params(
    mlflow: "MlflowClient", run: str, params: Mapping[str, str], known: Sequence[str] = ()
) -> None:
    """Log the params of a run that the server does not have, in as few requests as possible."""
    from mlflow.entities import Param

    rows = [Param(name, value) for name, value in params.items() if name not in known]
    for start in range(0, len(rows), _PARAMS):
        mlflow.log_batch(run, params=rows[start : start + _PARAMS])


def bury_the_dead(mlflow: "MlflowClient", at: Sequence[str]) -> None:
    """End the runs of this machine whose process was killed without a chance to say so."""
    running = list(mlflow.search_runs(at, "attributes.status = 'RUNNING'"))
    dead = [run for run in running if _died_here(run.data.tags.get(PROCESS, ""))]
    alive = {run.data.tags.get(PARENT) for run in running if run not in dead}
    for run in dead:
        # A pipeline's run bears the process of its first stage, and lives with its latest.
        for ended in (run.info.run_id, run.data.tags.get(PARENT)):
            if ended is not None and ended not in alive:
                mlflow.set_terminated(ended, "KILLED")


def _died_here(known: str) -> bool:
    return known.startswith(f"{socket.gethostname()}/") and not lives(known)


def ident(process: psutil.Process) -> str:
    """Name a process for good: its number alone comes back."""
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"


def lives(known: str) -> bool:
    """Say whether a process of this machine, as ``ident`` names it, is there."""
    return living(known) is not None


def living(known: str) -> psutil.Process | None:
    """Return the process of this machine that ``ident`` named so; None if it has ended."""
    try:
        process = psutil.Process(int(known.split("/")[1]))
        # A zombie has ended; only its parent has not asked how.
        lives = process.status() != psutil.STATUS_ZOMBIE and ident(process) == known
    except psutil.Error:
        return None
    return process if lives else None


def main() -> None:
    """Copy runs until standard input says that the stage has ended, or is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the stage has ended
    while not select.select([sys.stdin], [], [], _SECONDS)[0]:
        with contextlib.suppress(Exception):
            deliver()
    signal.alarm(int(_LONGEST_SECONDS))  # if no process waits for it any more
    here = connection.client(here=True)
    every = [one.experiment_id for one in here.search_experiments()]
    bury_the_dead(here, every)  # the stage, if it was killed
    deliver(patiently=True)


if __name__ == "__main__":
    main()
