"""``atelier up`` and ``down``: the servers of docker-compose.yaml, without Docker.

It starts a Prefect server, an MLflow server, a worker of this clone and its live pages, on
localhost only. The first two store their data in files of this clone, or in PostgreSQL if
``ATELIER_POSTGRES`` names one (``postgresql://user:password@host:5432``). Two clones of one
machine have servers of their own: each remembers its ports, and takes others than those that
are in use.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from atelier import atomic, connections
from atelier.errors import ParamsError
from flows.infra import clone
from flows.live import plans
from tasks.run import paths

POSTGRES = "ATELIER_POSTGRES"
_FOLDER = paths.ARTIFACTS / "servers"
_HOST = "127.0.0.1"
_PATIENCE_SECONDS = 600.0  # of a machine with other work; a server that ends is seen at once
_QUERY = "PREFECT_WORKER_QUERY_SECONDS"
_WORKS = "started!"  # what a worker says when its server knows it
_PREFECT = "1-prefect"  # the names' order is that of their start
_MLFLOW = "2-mlflow"
_WORKER = "3-worker"
_LIVE = "4-live"
_DATABASES = ("prefect", "mlflow")
_PORTS = _FOLDER / "ports.json"  # those that this clone's servers had last
_USUAL = {_PREFECT: 4200, _MLFLOW: 5000, _LIVE: plans.USUAL_PORT}
_NEXT = 100  # ports that are tried after the usual one
_OWN_DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"


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


def up(prefect_port: int | None, mlflow_port: int | None) -> Iterator[str]:
    """Start what does not run yet; yield what to tell people, a line each.

    Args:
        prefect_port: None: the port of last time, or the first free one from 4200.
        mlflow_port: None: the same from 5000.

    Raises:
        ParamsError: A port is taken, a server did not answer, or PostgreSQL cannot be reached.
    """
    _FOLDER.mkdir(parents=True, exist_ok=True)
    prefect_port = _port(_PREFECT, prefect_port)
    mlflow_port = _port(_MLFLOW, mlflow_port)
    live_port = _port(_LIVE, None)
    ports = {_PREFECT: prefect_port, _MLFLOW: mlflow_port, _LIVE: live_port}
    atomic.write(_PORTS, json.dumps(ports))
    database = os.environ.get(POSTGRES)
    if database:
        _ensure_databases(database)
        yield f"databases {' and '.join(_DATABASES)} are in PostgreSQL"
    addresses = {
        "PREFECT_API_URL": f"http://{_HOST}:{prefect_port}/api",
        "MLFLOW_TRACKING_URI": f"http://{_HOST}:{mlflow_port}",
    }
    prefect, mlflow, live, worker = _servers(ports, database, addresses)
    servers = (prefect, mlflow, live)
    new = {one.name: _launch(one) for one in servers if _process(one.name) is None}
    fresh = prefect.name in new
    if fresh:
        from flows.infra import prefect_setup  # takes seconds, in which the servers start

    for server in (*servers, worker):
        if server.name in new:
            _await(server, new[server.name])
            yield f"{server.name} runs{_at(server)}; its log is {_log(server)}"
        else:
            yield f"{server.name} runs already{_at(server)}"
        if server is prefect:
            if fresh:
                _on(addresses, prefect_setup.setup)
            if _process(worker.name) is None:
                new[worker.name] = _launch(worker)  # it needs its pool
            if fresh:
                _on(addresses, prefect_setup.deploy)  # takes seconds, too
                yield "work pools, limits and the deployments of prefect.yaml are there"
    yield "In each shell that should use them:"
    yield from (f"  export {name}={value}" for name, value in addresses.items())


def _at(server: Server) -> str:
    parts = urlsplit(server.health or "")
    return f" at http://{parts.netloc}" if parts.netloc else ""


def _port(name: str, asked: int | None) -> int:
    """Return the port of a server: its own while it runs, the one asked for, or a free one.

    Raises:
        ParamsError: Another program has the port that was asked for, or all of them.
    """
    last: int | None = _last_ports().get(name)
    if _process(name) is not None:
        last = last or asked or _USUAL[name]
        if asked not in {None, last}:
            raise ParamsError(
                f"{name} of this clone runs at port {last}, and port {asked} was asked for; "
                "`atelier down` stops it"
            )
        return last
    if asked is not None:
        if _taken(asked):
            raise ParamsError(
                f"port {asked} is used by another program, perhaps a server of another clone; "
                f"name another port for {name}, or none to take a free one"
            )
        return asked
    usual = _USUAL[name]
    free = range(usual, usual + _NEXT)
    for port in free if last is None else [last, *free]:
        if not _taken(port):
            return port
    raise ParamsError(f"no port from {usual} to {usual + _NEXT - 1} is free for {name}")


def _last_ports() -> dict[str, int]:
    try:
        return dict(json.loads(_PORTS.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _taken(port: int) -> bool:
    """Say whether a program listens on a port of this machine, on any of its addresses."""
    return bool(connections.why_taken(_HOST, port))


def down() -> Iterator[str]:
    """Stop what ``up`` started here; yield a line for each."""
    found = sorted(_FOLDER.glob("*.pid"), reverse=True)  # the worker before its server
    if not found:
        yield "nothing that `up` started runs"
    for file in found:
        process = _process(file.stem)
        if process is not None:
            _stop(process)
        file.unlink()
        yield f"{file.stem} is stopped"


def _stop(process: psutil.Process) -> None:
    """End a process and what it started."""
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=15)
    for one in alive:
        one.kill()


def _servers(
    ports: Mapping[str, int], database: str | None, addresses: Mapping[str, str]
) -> list[Server]:
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    prefect = quiet | {"PREFECT_SERVER_UI_API_URL": addresses["PREFECT_API_URL"]}
    runs = f"sqlite:///{paths.MLFLOW.resolve()}/mlflow.db"
    if database:
        prefect[_OWN_DATABASE] = _url(database, "asyncpg", "prefect")
        runs = _url(database, "psycopg2", "mlflow")
    elif _OWN_DATABASE not in os.environ:
        # Not in the user's home: servers of two clones would share deployments and runs.
        prefect[_OWN_DATABASE] = f"sqlite+aiosqlite:///{_FOLDER.resolve()}/prefect.db"
    paths.MLFLOW.mkdir(parents=True, exist_ok=True)
    files = (paths.MLFLOW / "artifacts").resolve()
    server = ["-m", "prefect", "server", "start", "--host", _HOST]
    server += ["--port", str(ports[_PREFECT])]
    mlflow = ["-m", "mlflow", "server", "--host", _HOST, "--port", str(ports[_MLFLOW])]
    mlflow += ["--artifacts-destination", files.as_uri(), "--workers", "1"]
    worker = ["-m", "prefect", "worker", "start", "--pool", clone.pool()]
    worker += ["--name", clone.pool()]
    live = ["-m", "cli", "live", "--port", str(ports[_LIVE])]
    # A run started from the pages would otherwise wait for up to ten seconds to be seen.
    often = {_QUERY: os.environ.get(_QUERY, "2")}
    here = {**addresses, **quiet, **often, "PWD": str(Path.cwd())}
    return [
        Server(_PREFECT, server, f"{addresses['PREFECT_API_URL']}/health", prefect),
        Server(
            _MLFLOW,
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
        Server(_LIVE, live, f"http://{_HOST}:{ports[_LIVE]}/health", {**addresses, **quiet}),
        Server(_WORKER, worker, None, here),
    ]


def _on(addresses: Mapping[str, str], act: Callable[[], Iterator[str]]) -> None:
    """Let a part of the set-up work on the new server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: addresses["PREFECT_API_URL"]}):
        list(act())


def _launch(server: Server) -> "subprocess.Popen[bytes]":
    log = _log(server)
    log.unlink(missing_ok=True)  # what an earlier one said is not what this one says
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
    return process


def _await(server: Server, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a server answers.

    Raises:
        ParamsError: It ended, or did not answer in time.
    """
    log = _log(server)
    end = time.monotonic() + _PATIENCE_SECONDS
    while not _ready(server, log):
        if process.poll() is not None:
            raise _gone(server, log)
        if time.monotonic() > end:
            _stop(psutil.Process(process.pid))  # else the next `up` would take it for ready
            process.wait()
            raise _gone(server, log, f"did not answer in {_PATIENCE_SECONDS:g} seconds")
        time.sleep(0.2)
    if process.poll() is not None:  # another program answered in its place
        raise _gone(server, log)


def _log(server: Server) -> Path:
    return _FOLDER / f"{server.name}.log"


def _ready(server: Server, log: Path) -> bool:
    """Say whether a server answers, or the worker has found its server."""
    if server.health is not None:
        return failure(server.health) is None
    return _WORKS in log.read_text(encoding="utf-8", errors="replace")


def _gone(server: Server, log: Path, what: str = "does not run") -> ParamsError:
    said = log.read_text(encoding="utf-8", errors="replace").split("\n")[-12:]
    where = f" at {server.health}" if server.health else ""
    return ParamsError("\n".join([f"{server.name} {what}{where}; it said last:", *said]))


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
