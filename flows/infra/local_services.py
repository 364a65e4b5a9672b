"""``atelier up`` and ``down``: the servers of docker-compose.yaml, without Docker.

It starts a Prefect server, an MLflow server and a worker of this clone, on localhost only. Both
servers store their data in files, or in PostgreSQL if ``ATELIER_POSTGRES`` names one
(``postgresql://user:password@host:5432``).
"""

import http.client
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from atelier import connections
from atelier.errors import ParamsError
from tasks.run import paths

POSTGRES = "ATELIER_POSTGRES"
_FOLDER = paths.ARTIFACTS / "servers"
_HOST = "127.0.0.1"
_PATIENCE_SECONDS = 180.0
_QUERY = "PREFECT_WORKER_QUERY_SECONDS"
_PREFECT = "1-prefect"  # the names' order is that of their start
_DATABASES = ("prefect", "mlflow")


@dataclass(frozen=True)
class Server:
    """One process that ``up`` starts.

    Attributes:
        name: Of its files in ``artifacts/servers/``.
        words: What is run, by this Python.
        health: Address that answers once it is ready; None where there is none.
        variables: Added to our environment.
    """

    name: str
    words: Sequence[str]
    health: str | None
    variables: Mapping[str, str]


def up(prefect_port: int, mlflow_port: int) -> Iterator[str]:
    """Start what does not run yet; yield what to tell people, a line each.

    Raises:
        ParamsError: A server did not answer, or PostgreSQL cannot be reached.
    """
    _FOLDER.mkdir(parents=True, exist_ok=True)
    database = os.environ.get(POSTGRES)
    if database:
        _ensure_databases(database)
        yield f"databases {' and '.join(_DATABASES)} are in PostgreSQL"
    addresses = {
        "PREFECT_API_URL": f"http://{_HOST}:{prefect_port}/api",
        "MLFLOW_TRACKING_URI": f"http://{_HOST}:{mlflow_port}",
    }
    for server in _servers(prefect_port, mlflow_port, database, addresses):
        if _process(server.name) is not None:
            yield f"{server.name} runs already"
            continue
        _start(server)
        if server.name == _PREFECT:
            _deploy(addresses)
            yield "work pools, limits and the deployments of prefect.yaml are there"
        yield f"{server.name} runs; what it says is in {_FOLDER / server.name}.log"
    yield "In each shell that should use them:"
    yield from (f"  export {name}={value}" for name, value in addresses.items())


def down() -> Iterator[str]:
    """Stop what ``up`` started here; yield a line for each."""
    found = sorted(_FOLDER.glob("*.pid"), reverse=True)  # the worker before its server
    if not found:
        yield "nothing that `up` started runs"
    for file in found:
        process = _process(file.stem)
        if process is not None:
            family = [process, *process.children(recursive=True)]
            process.terminate()
            _, alive = psutil.wait_procs(family, timeout=15)
            for one in alive:
                one.kill()
        file.unlink()
        yield f"{file.stem} is stopped"


def _servers(
    prefect_port: int, mlflow_port: int, database: str | None, addresses: Mapping[str, str]
) -> list[Server]:
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    prefect = quiet | {"PREFECT_SERVER_UI_API_URL": addresses["PREFECT_API_URL"]}
    runs = f"sqlite:///{paths.MLFLOW.resolve()}/mlflow.db"
    if database:
        prefect["PREFECT_API_DATABASE_CONNECTION_URL"] = _url(database, "asyncpg", "prefect")
        runs = _url(database, "psycopg2", "mlflow")
    paths.MLFLOW.mkdir(parents=True, exist_ok=True)
    files = (paths.MLFLOW / "artifacts").resolve()
    server = ["-m", "prefect", "server", "start", "--host", _HOST, "--port", str(prefect_port)]
    mlflow = ["-m", "mlflow", "server", "--host", _HOST, "--port", str(mlflow_port)]
    mlflow += ["--artifacts-destination", files.as_uri(), "--workers", "1"]
    worker = ["-m", "prefect", "worker", "start", "--pool", "here"]
    worker += ["--name", Path.cwd().name]
    # A run started from the pages would otherwise wait for up to ten seconds to be seen.
    often = {_QUERY: os.environ.get(_QUERY, "2")}
    here = {**addresses, **quiet, **often, "PWD": str(Path.cwd())}
    return [
        Server(_PREFECT, server, f"{addresses['PREFECT_API_URL']}/health", prefect),
        Server(
            "2-mlflow",
            mlflow,
            f"{addresses['MLFLOW_TRACKING_URI']}/health",
            # Not on the command line, where every user of the machine could read a password.
            {
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_BACKEND_STORE_URI": runs,
                # Five processes that poll for jobs of language models, of which there are none.
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
        ),
        Server("3-worker", worker, None, here),
    ]


def _deploy(addresses: Mapping[str, str]) -> None:
    """Create pools and limits on the new server, and the deployments of prefect.yaml."""
    done = subprocess.run(
        [sys.executable, "-m", "cli", "deploy"],
        env={**os.environ, **addresses, "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ParamsError(f"`atelier deploy` failed:\n{(done.stdout + done.stderr)[-1500:]}")


def _start(server: Server) -> None:
    log = _FOLDER / f"{server.name}.log"
    environment = {**os.environ, **server.variables}
    if server.name == _PREFECT:
        environment.pop("PREFECT_API_URL", None)  # it is the server, no client of one
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *server.words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    started = psutil.Process(process.pid).create_time()
    (_FOLDER / f"{server.name}.pid").write_text(f"{process.pid} {started}", encoding="utf-8")
    end = time.monotonic() + _PATIENCE_SECONDS
    while server.health is not None and failure(server.health) is not None:
        if process.poll() is not None or time.monotonic() > end:
            tail = "\n".join(
                log.read_text(encoding="utf-8", errors="replace").split("\n")[-12:]
            )
            raise ParamsError(f"{server.name} does not answer at {server.health}:\n{tail}")
        time.sleep(0.5)


def _process(name: str) -> psutil.Process | None:
    """Return the process that ``up`` started under this name, if it lives."""
    try:
        number, started = (_FOLDER / f"{name}.pid").read_text(encoding="utf-8").split()
        process = psutil.Process(int(number))
        lives = process.status() != psutil.STATUS_ZOMBIE
        return process if lives and process.create_time() == float(started) else None
    except (OSError, psutil.Error):
        return None


def failure(url: str, seconds: float = 5.0) -> str | None:
    """Return why an address does not answer with status 200 in time; None if it does."""
    url = re.sub(
        r"//[^/@]*@", "//", url
    )  # a user and a password, which urllib takes for a host
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310
            return None if answer.status == 200 else f"it answers {answer.status}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return connections.cause(error)


def _url(database: str, driver: str, name: str) -> str:
    parts = urlsplit(database)
    return f"postgresql+{driver}://{parts.netloc}/{name}"


def _ensure_databases(database: str) -> None:
    try:
        import psycopg2
    except ModuleNotFoundError:
        raise ParamsError(
            f"{POSTGRES} is set, but the driver is not installed: pip install -e '.[postgres]'"
        ) from None
    parts = urlsplit(database)
    if parts.scheme != "postgresql" or not parts.hostname:
        raise ParamsError(f"{POSTGRES} should be postgresql://user:password@host:port")
    try:
        with closing(psycopg2.connect(f"postgresql://{parts.netloc}/postgres")) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            for name in _DATABASES:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if cursor.fetchone() is None:
                    cursor.execute(f'CREATE DATABASE "{name}"')
    except psycopg2.OperationalError as error:
        # Its text names host and user, never the password.
        raise ParamsError(f"PostgreSQL of {POSTGRES} cannot be used: {error}") from None
