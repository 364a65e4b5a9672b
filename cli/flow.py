"""Flows run from the command line: the server they need, Ctrl-C, the exit code."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from flows.dvc.overrides import Changes
    from flows.pipeline import Where

_SECONDS_TO_STOP = 7.0  # from Ctrl-C until the process ends, whatever is still open


def reproduce(
    targets: list[str] | None, force: bool, changes: "Changes", where: "Where"
) -> NoReturn:
    """Run the flow ``reproduce`` and exit as it ended."""

    def run() -> "State[Any]":
        from flows import reproduce as module

        return module.reproduce(targets, force, changes, where, return_state=True)

    _to_end(run)


def sharded(
    stage: str, shards: int, workers: int, scheduler: str | None, slurm: bool
) -> NoReturn:
    """Run the flow ``annotate_sharded`` or ``generate_sharded`` and exit as it ended."""
    from flows import sharded as module

    # What is absent is reported before Prefect starts.
    if slurm:
        module.slurm_runner(workers, 0)
    else:
        module.runner(workers, scheduler)
    run = {"annotate": module.annotate_sharded, "generate": module.generate_sharded}[stage]
    _to_end(lambda: run(shards, workers, scheduler, slurm, return_state=True))


def sweep(settings: list[str], trials: int | None, minutes: float | None) -> NoReturn:
    """Run the flow ``sweep`` and exit as it ended."""
    from flows import sweep as module

    wanted = module.parse(settings)
    module.check(wanted, trials)  # a mistake is reported before a server starts
    _to_end(lambda: module.sweep(wanted, trials, minutes, return_state=True))


def compare(
    first: str, second: str, slack: float, promote: bool, crown: bool, pairwise: bool
) -> NoReturn:
    """Run the flow ``compare`` and exit as it ended."""

    def run() -> "State[Any]":
        from flows import compare as module

        return module.compare(first, second, slack, promote, crown, pairwise, return_state=True)

    _to_end(run)


def _to_end(run: "Callable[[], State[Any]]") -> NoReturn:
    from flows.infra import doctor

    with _stopped_by_ctrl_c():
        doctor.expect_server()
        _start_server()
        state = run()
    raise typer.Exit(0 if state.is_completed() else 1)


def _start_server() -> None:
    """Start Prefect's temporary server, unless a server is set.

    Ctrl-C goes to all processes of a terminal. A server that ends by it leaves Prefect trying
    for minutes to record how the run ended. So it is started by a thread that blocks SIGINT,
    which the server inherits; Prefect ends it by SIGTERM.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    started: Future[None] = Future()

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start()
        except Exception as error:
            started.set_exception(error)
        else:
            started.set_result(None)

    threading.Thread(target=start, daemon=True, name="temporary server").start()
    started.result()


def _leave() -> NoReturn:
    """End at once, and with us the temporary server, which would outlive this process."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "uvicorn" in child.cmdline():
                child.terminate()
    os._exit(130)


@contextlib.contextmanager
def _stopped_by_ctrl_c() -> Iterator[None]:
    """On Ctrl-C print one line and exit with 130, after ``_SECONDS_TO_STOP`` at the latest."""

    def stop(number: int, frame: object) -> NoReturn:
        del number, frame
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # a second one: at once
        logging.disable(logging.CRITICAL)  # the line below says all
        sys.stderr.write("Stopped; the same command goes on from the last checkpoint.\n")
        sys.stderr.flush()
        # Stages end with this process in any case: their supervisors watch it.
        deadline = threading.Timer(_SECONDS_TO_STOP, _leave)
        deadline.daemon = True
        deadline.start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    signal.signal(signal.SIGINT, before)
