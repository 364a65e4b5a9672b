"""Server of live pages, on localhost: one page for each run, read from files alone.

The page asks for itself every two seconds and exchanges the parts that changed. Its two
buttons are forms with a token that only the page has.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.resources
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import jinja2
from fastapi import FastAPI, Form, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from markupsafe import Markup
from starlette.middleware.trustedhost import TrustedHostMiddleware

from atelier import atomic, connections
from atelier.config.profile import read_switch
from atelier.errors import AtelierError, ParamsError
from atelier.reports import charts
from flows.live import control, graph, plans, runs, tracked
from flows.live.runs import Run
from survey.app import middleware
from tasks.run import paths
from tasks.tracking import connection, run_record

HOST = "127.0.0.1"
_NAMES = ["127.0.0.1", "localhost"]
_FOLDER = importlib.resources.files("flows.live") / "templates"
_SECONDS_BETWEEN_PLANS = 2.0
_STEPS_SHOWN = 4  # validation images of one model, the latest
_FIRST = ("loss", "drift", "aim_error", "win_error", "lose_error", "accuracy")
_LAST = ("images_per_second", "memory_gb")


def serve(port: int, hour_price: float) -> None:
    """Serve the pages until Ctrl-C.

    Raises:
        ParamsError: The port is taken.
    """
    import uvicorn

    app = application(hour_price)
    watch = threading.Thread(target=_watch, daemon=True, name="plans")
    watch.start()
    config = uvicorn.Config(
        app, host=HOST, port=port, access_log=False, log_level="warning", server_header=False
    )
    server = uvicorn.Server(config)
    with _announced(port):
        server.run()


@contextlib.contextmanager
def _announced(port: int) -> Iterator[None]:
    """Note the address for the links of flows; it is removed at the end."""
    address = f"http://{HOST}:{port}"
    atomic.write(plans.ADDRESS, address)
    try:
        yield
    finally:
        if plans.address() == address:
            plans.ADDRESS.unlink(missing_ok=True)


def check_free(port: int) -> None:
    """Refuse a port that another program uses.

    Raises:
        ParamsError: It is in use.
    """
    why = connections.why_taken(HOST, port)
    if why:
        raise ParamsError(f"--port {port} cannot be opened: {why}; name another port")


def _watch() -> None:
    """Note the plans of runs that DVC started alone, as soon as they are seen."""
    importlib.import_module("mlflow")  # takes seconds: not while somebody waits for a page
    while True:
        for run in runs.waiting_for_a_plan():
            try:
                plans.look(run)
            except Exception as error:  # a page without reasons is better than none
                run_record.note(run, stages={}, unplanned=connections.cause(error))
        time.sleep(_SECONDS_BETWEEN_PLANS)


def application(hour_price: float) -> FastAPI:
    """Return the app.

    Args:
        hour_price: Of an hour of a GPU, or of a core where there is none.
    """
    app = FastAPI(title="atelier live", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_NAMES)
    app.add_middleware(middleware.Guard, more_policy="connect-src 'self'")
    pages = _Pages(hour_price)
    _add_pages(app, pages)
    _add_buttons(app, pages)
    kinds = {"live.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
    for name, kind in kinds.items():
        app.get(f"/{name}", name=name)(functools.partial(_asset, name, kind))
    return app


class _Pages:
    """Renders pages; knows which pictures they offer."""

    def __init__(self, hour_price: float) -> None:
        self.hour_price = hour_price
        self.token = secrets.token_urlsafe(24)
        self.offered: dict[str, Path] = {}

    def of(self, run: Run | None, said: str = "") -> HTMLResponse:
        """Return a run's page, or what to do where there is no run yet."""
        others = [one for key in runs.newest()[:12] if (one := runs.read(key)) is not None]
        values: dict[str, Any] = {"run": run, "others": others, "said": said}
        if run is not None:
            values |= self._about(run)
        return HTMLResponse(_environment().get_template("live.html.j2").render(values))

    def _about(self, run: Run) -> dict[str, Any]:
        known = tracked.of(run.noted["run"])
        left = runs.seconds_left(run, _past()) if run.state == "running" else None
        return {
            "name": known.name or run.noted.get("name") or " ".join(run.noted["command"][-3:]),
            "left": left,
            "money": run.price.money(self.hour_price),
            "hour_price": self.hour_price,
            "token": self.token,
            "graph": graph.drawn(run.stages),
            "charts": list(_charts(known)),
            "validation": self._validation(known),
            "painted": self._painted(run),
            "output": control.output() if run.state in {"failed", "stopped"} else "",
            "report": _report(run),
        }

    def _validation(self, known: tracked.Tracked) -> dict[str, list[tuple[int, str]]]:
        groups: dict[str, list[tuple[int, str]]] = {}
        for one in known.pictures:
            shown = groups.setdefault(one.name, [])
            if len(shown) < _STEPS_SHOWN:
                shown.append((one.step, self._offer(one.file)))
        return groups

    def _painted(self, run: Run) -> list[dict[str, Any]]:
        return [
            {
                "painter": one.painter,
                "count": one.count,
                "files": [(file.stem, self._offer(file)) for file in one.files],
            }
            for one in runs.painted(run)
        ]

    def _offer(self, file: Path) -> str:
        """Return the address of a picture; it changes with the picture."""
        stat = file.stat()
        text = f"{file} {stat.st_mtime_ns} {stat.st_size}"
        key = hashlib.sha256(text.encode()).hexdigest()[:24]
        self.offered[key] = file
        return f"/picture/{key}.png"


def _add_pages(app: FastAPI, pages: _Pages) -> None:
    @app.get("/", response_class=HTMLResponse)
    def latest(after: str = "") -> Response:
        """Show the run that began last; ``after`` is one that was continued."""
        newest = runs.newest()
        said = _CONTINUED if newest and newest[0] == after else ""
        return pages.of(runs.read(newest[0]) if newest else None, said)

    @app.get("/runs/{key}", response_class=HTMLResponse)
    def page(key: str, stopping: bool = False) -> Response:
        """Show a run."""
        run = _found(key)
        return pages.of(run, _STOPPING if stopping and run.state == "running" else "")

    @app.get("/picture/{key}.png")
    def picture(key: str) -> Response:
        """Send a picture that a page offered."""
        file = pages.offered.get(key)
        if file is None or not file.is_file():
            raise HTTPException(404)
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return FileResponse(file, media_type="image/png", headers=headers)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Say that the server is up."""
        return {"status": "ok"}


_STOPPING = "Stopping: the stage ends at its last checkpoint."
_CONTINUED = "Started again: it appears here in some seconds."


def _add_buttons(app: FastAPI, pages: _Pages) -> None:
    def press(key: str, token: str, act: Callable[[Any], None], then: str) -> Response:
        run = _found(key)
        if not secrets.compare_digest(token.encode(), pages.token.encode()):
            raise HTTPException(403, "This form is not from this page; reload it.")
        try:
            act(run.noted)
        except AtelierError as error:
            return pages.of(run, str(error))
        return RedirectResponse(then, 303)

    @app.post("/runs/{key}/stop")
    def stop(key: str, token: Annotated[str, Form()]) -> Response:
        """End a run at its last checkpoint."""
        return press(key, token, control.stop, f"/runs/{quote(key)}?stopping=true")

    @app.post("/runs/{key}/continue")
    def proceed(key: str, token: Annotated[str, Form()]) -> Response:
        """Run what is left of a run."""
        return press(key, token, control.proceed, f"/?after={quote(key)}")


def _found(key: str) -> Run:
    run = runs.read(key) if key in runs.newest() else None
    if run is None:
        raise HTTPException(404, "There is no such run.")
    return run


def _report(run: Run) -> Path | None:
    """Return the report of a finished run; that of an experiment is not kept here."""
    here = run.noted["folder"] == str(Path.cwd()) and not run.noted.get("copied")
    return paths.PAGE.resolve() if here and run.state == "finished" else None


def _asset(name: str, kind: str) -> Response:
    return Response((_FOLDER / name).read_bytes(), media_type=kind)


def _charts(known: tracked.Tracked) -> Iterator[tuple[str, Markup]]:
    """Yield a chart for each value, the loss first; one line for each training."""
    order = [*_FIRST, *sorted(set(known.curves) - {*_FIRST, *_LAST}), *_LAST]
    for value in order:
        if value in known.curves:
            title = value.replace("_", " ").replace(" gb", " (GB)")
            yield title, charts.lines(known.curves[value], title=title, across="step")


def _past() -> dict[str, float]:
    """Return the seconds that each stage took when it ran last."""
    return _past_of(read_switch(paths.SWITCH), int(time.time() // 60))


@functools.lru_cache(maxsize=1)
def _past_of(profile: str, minute: int) -> dict[str, float]:
    del minute  # asked once a minute
    try:
        found = connection.past_minutes(profile)
    except Exception:  # a server that is away costs the estimate alone
        return {}
    return {name: 60 * minutes for name, minutes in found.items()}


def clock(seconds: float) -> str:
    """Return a time span as people write it: ``42 s``, ``3:05 min``, ``2:10 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


@functools.cache
def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("flows.live", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["clock"] = clock
    found.filters["moment"] = lambda at: datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
    return found
