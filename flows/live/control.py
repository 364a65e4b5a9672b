"""Stop and continue a run from its live page.

Stopping is what Ctrl-C does: SIGINT to the process that runs the pipeline, whose stages end at
their last checkpoint. A run that Prefect's worker started is cancelled through Prefect.
Continuing is the same command, or the same deployment with the same parameters, once more.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from atelier import connections
from atelier.errors import ArtifactError
from tasks.run import paths
from tasks.tracking import sync

_LOG = paths.LIVE / "continued.log"
_PATIENCE = 20.0  # seconds after SIGINT until SIGTERM: a shell's background job ignores SIGINT
_SYNC = "tasks.tracking.sync"  # a process next to a stage, which ends when the stage has ended


def stop(noted: Mapping[str, Any]) -> None:
    """End a run at its last checkpoint.

    Raises:
        ArtifactError: Prefect's server did not take the request.
    """
    if noted.get("deployment"):
        _cancel(noted["flow_run"])
        return
    runner = sync.living(noted["process"])
    if runner is None:
        return
    # A flow's stages end with it. DVC waits for its stage, so the stage gets the signal, too.
    family = [runner] if noted.get("flow_run") else [runner, *runner.children(recursive=True)]
    family = [one for one in family if not _is_sync(one)]
    _signal(family, signal.SIGINT)
    later = threading.Timer(_PATIENCE, _signal, [family, signal.SIGTERM])
    later.daemon = True
    later.start()


def proceed(noted: Mapping[str, Any]) -> None:
    """Run what is left of a run that was stopped, or that failed.

    Raises:
        ArtifactError: It cannot be started.
    """
    if noted.get("deployment"):
        _deploy(noted)
        return
    _LOG.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _LOG.open("wb") as log:
            process = subprocess.Popen(
                noted["command"],
                cwd=noted["folder"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PWD": noted["folder"]},
            )
    except OSError as error:
        command = " ".join(noted["command"])
        raise ArtifactError(f"`{command}` cannot be started: {error}") from None
    # Somebody must ask how it ended: a zombie would count as a run that lives.
    threading.Thread(target=process.wait, daemon=True).start()


def output() -> str:
    """Return the last lines of what the page started."""
    try:
        return "\n".join(Path(_LOG).read_text("utf-8", errors="replace").splitlines()[-12:])
    except OSError:
        return ""


def _signal(family: list[psutil.Process], number: signal.Signals) -> None:
    for one in family:
        with contextlib.suppress(psutil.Error):  # it has ended; psutil knows of reused numbers
            one.send_signal(number)


def _is_sync(process: psutil.Process) -> bool:
    try:
        return _SYNC in process.cmdline()
    except psutil.Error:
        return True


def _cancel(flow_run: str) -> None:
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(flow_run), Cancelling())
    except Exception as error:
        raise _absent(error) from None


def _deploy(noted: Mapping[str, Any]) -> None:
    from uuid import UUID

    from prefect.deployments import run_deployment

    try:
        run_deployment(UUID(noted["deployment"]), parameters=noted["parameters"], timeout=0)
    except Exception as error:
        raise _absent(error) from None


def _absent(error: Exception) -> ArtifactError:
    return ArtifactError(
        f"Prefect's server did not take the request ({connections.cause(error)}); set "
        "PREFECT_API_URL for `atelier live`, or use Prefect's page"
    )
