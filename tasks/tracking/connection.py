"""MLflow connection: its address, its client, and the experiment of each profile.

Runs are written to a SQLite file of this repository, which is never away; where
MLFLOW_TRACKING_URI names a server, ``sync`` copies them there. Models are registered there.
"""

import contextlib
import fcntl
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tasks.run import paths

if TYPE_CHECKING:
    from mlflow import MlflowClient

_URI = "MLFLOW_TRACKING_URI"
_USER = re.compile(r"(?<=://)[^\s/]*@")  # before the host of an address
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # An absent server should cost seconds, not the default's minutes of retrying.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_uri() -> str:
    """Return where runs are kept: MLFLOW_TRACKING_URI, or a SQLite file of this repository.

    A user and password in a server's address move to the variables that MLflow has for them,
    for the address comes into messages: ours, MLflow's and those of the stages started here.
    """
    uri = os.environ.get(_URI) or _own_uri()
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"} and parts.username is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
        uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        os.environ[_URI] = uri
    return uri


def without_password(text: str) -> str:
    """Return ``text`` with what stands for user and password in addresses replaced by ``…``."""
    return _USER.sub("…@", text)


def _own_uri() -> str:
    return f"sqlite:///{paths.MLFLOW.resolve()}/mlflow.db"


def ui_command() -> str:
    """Return the shell command that opens MLflow's pages on the runs."""
    uri = tracking_uri()
    if uri.startswith("http"):
        return f"xdg-open {uri}"
    here = f"sqlite:///{Path.cwd()}/"
    uri = uri.replace(here, "sqlite:///") if uri.startswith(here) else uri
    uri = without_password(uri)
    python = _relative(Path(sys.executable))
    quiet = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"
    return f"{quiet} {python} -m mlflow ui --backend-store-uri {uri} --port 5000"


def is_away() -> bool:
    """Say whether MLflow is a server, to which runs are copied from this repository's file."""
    return not tracking_uri().startswith("sqlite:")


def client(*, here: bool = False) -> "MlflowClient":
    """Return MLflow's client on ``tracking_uri``, without telemetry or chatter.

    Args:
        here: On the file that stages write to, also where MLflow is a server.
    """
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    paths.MLFLOW.mkdir(parents=True, exist_ok=True)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(tracking_uri())  # model loading and registry read the global
    uri = _own_uri() if here and is_away() else tracking_uri()
    return mlflow.MlflowClient(tracking_uri=uri)


def experiment(mlflow: "MlflowClient", profile_name: str) -> str:
    """Return the id of the profile's experiment, made if need be."""
    name = f"atelier-{profile_name}"
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # MLflow's pages open on trainings; without this on chats with language models.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    location = None  # a server says where files go
    if mlflow.tracking_uri == _own_uri():
        location = (paths.MLFLOW / "artifacts").resolve().as_uri()
    return str(mlflow.create_experiment(name, artifact_location=location, tags=kind))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold off other stages of this repository while tables, experiment and parent are made."""
    paths.MLFLOW.mkdir(parents=True, exist_ok=True)
    with (paths.MLFLOW / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def past_minutes(profile_name: str) -> dict[str, float]:
    """Return how long each stage took when it last ran to its end, by the stage's name."""
    if tracking_uri() == _own_uri() and not (paths.MLFLOW / "mlflow.db").is_file():
        return {}
    mlflow = client()
    found = mlflow.get_experiment_by_name(f"atelier-{profile_name}")
    minutes: dict[str, float] = {}
    if found is None:
        return minutes
    ended = "attributes.status = 'FINISHED' and tags.stage != ''"
    for run in mlflow.search_runs([found.experiment_id], ended, max_results=100):
        took = (run.info.end_time - run.info.start_time) / 60_000
        minutes.setdefault(run.data.tags["stage"], took)  # the newest come first
    return minutes


def _relative(path: Path) -> Path:
    """Return ``path`` as seen from here, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
