"""The only code that knows MLflow: a run for each stage, under one for the whole pipeline.

How it is laid out, so that runs compare well in MLflow's pages:

* one experiment a profile, ``atelier-<profile>``: numbers of two profiles do not compare;
* one parent run for a whole ``dvc repro`` or flow run, with the profile's params
  (``cpo.lora.rank``) and the results of its stages (``evaluate.fid``): the experiment's list
  compares pipeline runs, without opening any;
* one child a stage, named after it, with its own section's params (``lora.rank``), curves,
  pictures and files: filter by ``tags.stage = "cpo"`` to compare trainings.

A study's pipeline runs are children of its own run, in an experiment ``atelier-<study>``.

All stages of one flow run share the parent by the environment variable ATELIER_PIPELINE;
those of one ``dvc repro`` by that process. A stage run by hand has a parent of its own. The
parent has the state and end of its latest child.

MLflow being away never stops a stage: it is said once, and what the stage says is kept on disk
(``tasks.tracking.outbox``) until MLflow answers: at the stage's end, at the next stage's
beginning, or when the registry is reconciled. A server that hangs, trickles or is slow counts
as away: after half a minute for a few requests, or three seconds for a point of a curve.

What is told may arrive although its answer is lost, and is told again. Each thing bears the
time at which it was said, and each run a name of its own, so that nothing stands there twice.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import re
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import PIL.Image
import psutil
import yaml

from atelier.config.profile import Profile, read_switch
from tasks.run import git, paths
from tasks.tracking import outbox
from tasks.tracking.outbox import Outbox

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from PIL import Image

PIPELINE = "ATELIER_PIPELINE"  # names the pipeline run that a stage belongs to
STUDY = "ATELIER_STUDY"  # names the study that a pipeline run belongs to, as NAME/<settings>
Status = Literal["FINISHED", "FAILED", "KILLED"]
_SECONDS_BETWEEN_LOOKS = 10
_ANSWER_SECONDS = 30.0  # for a few requests; then the server counts as away
_UPLOAD_SECONDS = 600.0  # for files
_POINT_SECONDS = 3.0  # for a point of a curve, of which there may be one a step
_DELIVERY_SECONDS = 60.0  # for what was kept; the rest waits for the next time
_POINTS = 500  # sent at once: MLflow takes 1000
_THUMBNAIL = (256, 256)  # as MLflow's pages show them
_PARENT = "atelier.pipeline"  # the tag by which stages find their parent
_STUDY = "atelier.study"  # the tag by which they find their study
_NAME = "atelier.run"  # the tag by which a run is found if the answer to its making was lost
Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)
_URI = "MLFLOW_TRACKING_URI"
_USER = re.compile(r"(?<=://)[^\s/]*@")  # before the host of an address
_TAG = 5000  # characters of a tag that MLflow takes anywhere
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # An absent server should cost seconds, not the default's minutes of retrying.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextlib.contextmanager
def stage(name: str, profile: Profile) -> Iterator["StageRun"]:
    """Track one stage; its run ends as finished, failed, or killed (SIGTERM, Ctrl-C)."""
    run = StageRun()
    run.begin(name, profile)
    with _ended(run):
        yield run


@contextlib.contextmanager
def _ended(run: "StageRun | StudyRun") -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        run.end("KILLED")
        raise
    except BaseException:
        run.end("FAILED")
        raise
    run.end("FINISHED")


class StageRun:
    """What a stage says of itself: values, pictures, files. Made by ``stage``."""

    def __init__(self) -> None:
        self._header: dict[str, Any] = {}
        self._open: _Runs | None = None
        self._kept: Outbox | None = None
        self._warned = False
        self._last = 0  # step of a curve that was said

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log a point of each curve; without ``step``, a result, also put on the parent."""
        self._last = max(self._last, step or 0)
        at, last, began = _now(), self._last, time.monotonic()
        self._tell(lambda to: to.metrics(values, step, last, at))
        if step is not None and time.monotonic() - began > _POINT_SECONDS:
            self._keep_from_now_on()

    def picture(self, name: str, picture: "Image.Image", step: int | None = None) -> None:
        """Log a picture; those of one name scroll through their steps in MLflow's page."""
        at = _now()
        self._tell(lambda to: to.picture(name, picture, step, at))

    def file(self, path: Path) -> None:
        """Log a file, or a folder with all that is in it."""
        self._tell(lambda to: to.file(path), seconds=_UPLOAD_SECONDS)

    def tags(self, values: Mapping[str, str]) -> None:
        """Say what is no number, such as why one is absent; also on the parent."""
        self._tell(lambda to: to.tags(values))

    def begin(self, name: str, profile: Profile) -> None:
        """Open the stage's run, and its parent if this is the first stage."""
        self._header = _header(name, profile)
        with self._said_once():
            deliver()
            self._open = bounded(lambda: _begin(self._header), _ANSWER_SECONDS)
            self._open.watch_the_machine()

    def end(self, status: Status) -> None:
        """Close the run, also after MLflow was away in between."""
        products = _products(self._header["stage"]) if status == "FINISHED" else {}
        at = _now()
        self._tell(lambda to: to.end(status, products, at))
        if self._kept is not None:
            with self._said_once():
                deliver()

    def _tell(
        self, tell: "Callable[[_Runs | Outbox], None]", *, seconds: float = _ANSWER_SECONDS
    ) -> None:
        """Tell MLflow; once it was away, the outbox, so that the order stays."""
        if self._open is not None and self._kept is None:
            to = self._open
            with self._said_once():
                bounded(lambda: tell(to), seconds)
                return
        with self._said_once():
            self._keep_from_now_on()
            assert self._kept is not None
            tell(self._kept)

    def _keep_from_now_on(self) -> None:
        if self._kept is None:
            ids = {} if self._open is None else self._open.ids()
            self._kept = Outbox(self._header | ids)

    @contextlib.contextmanager
    def _said_once(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever breaks in MLflow, hours of training go on
            if not self._warned:
                _log.warning(
                    "MLflow at %s did not answer (%s); what the stage says is kept in %s and "
                    "delivered later",
                    without_password(tracking_uri()),
                    without_password(f"{type(error).__name__}: {error}")[:160],
                    outbox.FOLDER,
                )
            self._warned = True


def bounded(call: Callable[[], Answer], seconds: float) -> Answer:
    """Return what ``call`` answers; give it up after so many seconds if MLflow is a server.

    MLflow's own limit is for each read, which a server that trickles outlasts. What was given
    up goes on in a thread that ends with the process, so it must be able to arrive twice.

    Raises:
        TimeoutError: It took longer.
    """
    if not tracking_uri().startswith("http"):
        return call()
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="MLflow")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no whole answer within {seconds:g} s")
    return answers[0]


def deliver() -> int:
    """Tell MLflow what was kept while it was away; return how many stage runs that were.

    Raises:
        Exception: MLflow's, if it is still away; what has arrived is not sent again.
        TimeoutError: It answers so slowly that a part must wait for the next time.
    """
    delivered, end = 0, time.monotonic() + _DELIVERY_SECONDS
    for folder in outbox.waiting():
        with outbox.taken(folder) as header:
            if header is not None:
                _deliver(folder, header, end)
                delivered += 1
    return delivered


def _deliver(folder: Path, header: dict[str, Any], end: float) -> None:
    if "run" in header:
        runs = _Runs(client(), header["stage"], header["run"], header["parent"])
    else:
        runs = bounded(lambda: _begin(header), _ANSWER_SECONDS)
        outbox.remember(folder, header | runs.ids())
    ended, at = False, header["started"]
    for number, several in _in_requests(outbox.rest(folder)):
        if time.monotonic() > end:
            raise TimeoutError(f"it answers slowly; {folder.name} is delivered in part")
        at = several[-1]["time"]
        is_file = several[0]["kind"] == "file"
        bounded(
            functools.partial(_retell, runs, several),
            _UPLOAD_SECONDS if is_file else _ANSWER_SECONDS,
        )
        ended = several[0]["kind"] == "end"
        if not ended:  # the end may come twice; nothing behind it would say that it came
            outbox.check_off(folder, number)
    if not ended:  # its process was killed without a chance to say so
        bounded(lambda: runs.end("KILLED", {}, at), _ANSWER_SECONDS)
    outbox.remove(folder)


def _retell(runs: "_Runs", several: Sequence[Mapping[str, Any]]) -> None:
    """Tell MLflow one thing that was kept, or several points of curves."""
    said, at = several[0], several[0]["time"]
    kind = said["kind"]
    if kind == "metrics" and said["step"] is not None:
        runs.curve([(one["values"], one["step"], one["time"]) for one in several])
    elif kind == "metrics":
        runs.metrics(said["values"], None, said.get("last", 0), at)
    elif kind == "picture":
        with PIL.Image.open(said["file"]) as picture:
            runs.picture(said["name"], picture, said["step"], at)
    elif kind == "file":
        runs.file(said["file"])
    elif kind == "tags":
        runs.tags(said["values"])
    elif kind == "end":
        runs.end(said["status"], said["products"], at)


def _in_requests(
    rest: Iterator[tuple[int, dict[str, Any]]],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield what was said, points of curves by many at once, with the last one's number."""
    points: list[dict[str, Any]] = []
    number = -1
    for after, said in rest:
        is_point = said["kind"] == "metrics" and said["step"] is not None
        if points and (not is_point or sum(len(one["values"]) for one in points) > _POINTS):
            yield number, points
            points = []
        number = after
        if is_point:
            points.append(said)
        else:
            yield number, [said]
    if points:
        yield number, points


class _Runs:
    """The stage's run and its parent, in MLflow's terms."""

    def __init__(self, client: "MlflowClient", stage: str, run: str, parent: str) -> None:
        self._client, self._stage, self._run, self._parent = client, stage, run, parent
        self._monitor: SystemMetricsMonitor | None = None

    def ids(self) -> dict[str, str]:
        return {"run": self._run, "parent": self._parent}

    def watch_the_machine(self) -> None:
        """Log how busy CPU, memory, disk and GPUs are, every few seconds, until the end."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        self._monitor = SystemMetricsMonitor(
            self._run, sampling_interval=_SECONDS_BETWEEN_LOOKS, tracking_uri=tracking_uri()
        )
        self._monitor.start()

    def metrics(
        self, values: Mapping[str, float], step: int | None, last: int, at: int
    ) -> None:
        # A result named as a curve is its last point, not one more at its beginning.
        self._log(self._run, _points(values, last if step is None else step, at))
        if step is None:
            results = {f"{self._stage}.{name}": value for name, value in values.items()}
            self._log(self._parent, _points(results, 0, at))

    def curve(self, points: Sequence[tuple[Mapping[str, float], int, int]]) -> None:
        self._log(self._run, [one for point in points for one in _points(*point)])

    def picture(self, name: str, picture: "Image.Image", step: int | None, at: int) -> None:
        if step is None:
            self._client.log_image(self._run, picture, artifact_file=f"{_allowed(name)}.png")
            return
        # As MLflow's client names them, but by no chance: what arrives twice is there once.
        ident = uuid.uuid5(uuid.NAMESPACE_URL, f"{self._run} {name} {step} {at}")
        stem = f"{_allowed(name).replace('/', '~')}+step+{step}+timestamp+{at}+{ident}"
        small = picture.copy()
        small.thumbnail(_THUMBNAIL)
        with tempfile.TemporaryDirectory() as folder:
            for one, file in ((picture, f"{stem}.png"), (small, f"{stem}+compressed.webp")):
                one.save(Path(folder, file))
                self._client.log_artifact(self._run, str(Path(folder, file)), "images")
        self._client.set_tag(self._run, "mlflow.loggedImages", True)

    def file(self, path: Path) -> None:
        if path.is_dir():
            self._client.log_artifacts(self._run, str(path), artifact_path=path.name)
        else:
            self._client.log_artifact(self._run, str(path))

    def tags(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self._client.set_tag(self._run, name, value[:_TAG])
            self._client.set_tag(self._parent, f"{self._stage}.{name}", value[:_TAG])

    def end(self, status: str, products: Mapping[str, str], at: int) -> None:
        if self._monitor is not None:
            monitor, self._monitor = self._monitor, None
            monitor.finish()
        for tag, md5 in products.items():
            self._client.set_tag(self._run, tag, md5)
        self._client.set_terminated(self._run, status, at)
        self._client.set_terminated(self._parent, status, at)

    def _log(self, run: str, points: "list[Metric]") -> None:
        self._client.log_batch(run, metrics=points)


def _points(values: Mapping[str, float], step: int, at: int) -> "list[Metric]":
    from mlflow.entities import Metric

    # A database refuses NaN and infinity in its own ways: leave a gap in the curve.
    return [
        Metric(_allowed(name), float(value), at, step)
        for name, value in values.items()
        if math.isfinite(value)
    ]


def _now() -> int:
    """Milliseconds, as MLflow counts time."""
    return time.time_ns() // 1_000_000


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
    quiet = "MLFLOW_DISABLE_TELEMETRY=true"
    return f"{quiet} {python} -m mlflow ui --backend-store-uri {uri} --port 5000"


def client() -> "MlflowClient":
    """Return MLflow's client on ``tracking_uri``, without telemetry or chatter."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    paths.MLFLOW.mkdir(parents=True, exist_ok=True)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(tracking_uri())  # model loading and registry read the global
    return mlflow.MlflowClient(tracking_uri=tracking_uri())


def experiment(mlflow: "MlflowClient", profile_name: str) -> str:
    """Return the id of the profile's experiment, made if need be."""
    name = f"atelier-{profile_name}"
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # MLflow's pages open on trainings; without this on chats with language models.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    location = None  # a server says where files go
    if tracking_uri() == _own_uri():
        location = (paths.MLFLOW / "artifacts").resolve().as_uri()
    return str(mlflow.create_experiment(name, artifact_location=location, tags=kind))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold off other stages of this repository while tables, experiment and parent are made."""
    paths.MLFLOW.mkdir(parents=True, exist_ok=True)
    with (paths.MLFLOW / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provenance() -> dict[str, str]:
    """Return tags that say from which code and data a run comes."""
    tags: dict[str, str] = {}
    revision = git.answer("rev-parse", "HEAD")
    if revision:
        # dvc.lock changes while the stages run; it is a result, not a cause.
        changes = git.answer(*git.CHANGES)
        tags |= {"mlflow.source.git.commit": revision, "git.dirty": str(bool(changes)).lower()}
    if paths.DATA_PIN.is_file():
        outs = yaml.safe_load(paths.DATA_PIN.read_text(encoding="utf-8"))["outs"]
        tags["dvc.data"] = outs[0]["md5"]
    if paths.DVC_LOCK.is_file():
        tags["dvc.lock"] = _md5(paths.DVC_LOCK)  # as the run began
    if paths.JUDGED_BY.is_file():
        judged_by = yaml.safe_load(paths.JUDGED_BY.read_text(encoding="utf-8"))
        tags["criteria"] = f"{judged_by['domain']} {judged_by['version']}"
    return tags


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


def product(file: Path) -> str:
    """Return the tag by which a run says the md5, as DVC counts it, of a file that it wrote."""
    return f"out.{file.as_posix()}"


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return nested values by dotted name: MLflow would store a dict as one string."""
    rows: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{above}{key}.")
        else:
            rows[_allowed(f"{above}{key}")] = str(value)
    return rows


def _header(name: str, profile: Profile) -> dict[str, Any]:
    """Return what the run of stage ``name`` is, whether MLflow answers or not."""
    profile_name = read_switch(paths.SWITCH)
    common = provenance() | {
        "profile": profile_name,
        "mlflow.source.type": "LOCAL",
        "atelier.process": _ident(psutil.Process()),
    }
    command = "atelier run" if PIPELINE in os.environ else "dvc repro"
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return {
        "stage": name,
        "profile": profile_name,
        "pipeline": _pipeline(),
        "study": os.environ.get(STUDY),
        "started": _now(),
        "params": _section(name, profile),
        "tags": common
        | {
            "stage": name,
            "mlflow.source.name": f"python -m tasks {name}",
            _NAME: uuid.uuid4().hex,
        },
        "parent_name": _pipeline().rpartition("/")[2]
        if os.environ.get(STUDY)
        else f"pipeline {now}",
        "parent_params": flat(profile.model_dump()),
        "parent_tags": common | {"mlflow.source.name": command},
    }


def _begin(header: Mapping[str, Any]) -> _Runs:
    """Open the run that ``header`` describes, under the parent of its pipeline run."""
    with alone():
        mlflow = client()
        at = experiment(mlflow, _collection(header))
        _bury_the_dead(mlflow, at)
        parent = _parent(mlflow, at, header)
        run = made_once(
            mlflow,
            at,
            _NAME,
            name=header["stage"],
            tags={_NAME: uuid.uuid4().hex, **header["tags"], "mlflow.parentRunId": parent},
            started=header["started"],
        )
        _params(mlflow, run, header["params"])
        _log_data(mlflow, run, header["tags"])
        mlflow.update_run(parent, status="RUNNING")
    return _Runs(mlflow, header["stage"], run, parent)


def _parent(mlflow: "MlflowClient", at: str, header: Mapping[str, Any]) -> str:
    tags = {**header["parent_tags"], _PARENT: header["pipeline"]}
    known = _sole(mlflow, at, _PARENT, header["pipeline"])
    if known is None and header.get("study"):
        tags["mlflow.parentRunId"] = _study(mlflow, at, header["study"])
    if known is None:
        known = made_once(
            mlflow,
            at,
            _PARENT,
            name=header["parent_name"],
            tags=tags,
            started=header["started"],
        )
    _describe(mlflow, known, header)
    return known


def _describe(mlflow: "MlflowClient", parent: str, header: Mapping[str, Any]) -> None:
    """Log what a pipeline's run is, or what is missing: whoever made it may have been cut."""
    there = mlflow.get_run(parent).data.params
    missing = {k: v for k, v in header["parent_params"].items() if k not in there}
    if missing:  # the params come last
        _log_data(mlflow, parent, header["parent_tags"])
        _params(mlflow, parent, missing)


def made_once(
    mlflow: "MlflowClient",
    at: str,
    key: str,
    *,
    name: str,
    tags: Mapping[str, str],
    started: int,
) -> str:
    """Return the run whose tag ``key`` is that of ``tags``, made if need be.

    MLflow's client asks again where no answer came, though the first run may be made.
    """
    known = _sole(mlflow, at, key, tags[key])
    if known is None:
        made = mlflow.create_run(at, run_name=name, tags=dict(tags), start_time=started)
        known = _sole(mlflow, at, key, tags[key]) or str(made.info.run_id)
    return known


def _sole(mlflow: "MlflowClient", at: str, key: str, value: str) -> str | None:
    """Return the run with this tag; delete others with the same."""
    oldest_first = ["attributes.start_time ASC"]
    found = mlflow.search_runs([at], f"tags.`{key}` = '{value}'", order_by=oldest_first)
    for double in found[1:]:
        mlflow.delete_run(double.info.run_id)
    return str(found[0].info.run_id) if found else None


def _collection(header: Mapping[str, Any]) -> str:
    """Return what the experiment is called after: the study, or else the profile."""
    study: str | None = header.get("study")
    return study.partition("/")[0] if study else str(header["profile"])


def _study(mlflow: "MlflowClient", at: str, key: str) -> str:
    """Return the run of a study, made if need be: an experiment may be heard of before it."""
    tags = provenance() | {_STUDY: key, "mlflow.source.name": "atelier study"}
    name = key.partition("/")[0]
    return made_once(mlflow, at, _STUDY, name=name, tags=tags, started=_now())


@contextlib.contextmanager
def study(
    key: str, settings: Mapping[str, Any], tell: Callable[[str], None]
) -> Iterator["StudyRun"]:
    """Track a whole study: its pipeline runs are children of one run that says what it is.

    MLflow being away stops nothing. What stages say is kept and delivered as ever; what the
    study itself says is said again by the next run of the same study.

    Args:
        key: As ``STUDY`` has it; the same settings go on under the same run.
        settings: Of the study.
        tell: Called with a line if MLflow does not answer.
    """
    run = StudyRun(key, tell)
    run.begin(settings)
    with _ended(run):
        yield run


class StudyRun:
    """What a study says of itself. Made by ``study``."""

    def __init__(self, key: str, tell: Callable[[str], None]) -> None:
        self._key, self._say = key, tell
        self._warned = False

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the run, with the settings as its params, and the plain ones as tags."""
        rows = flat(settings)
        plain = {name: value for name, value in rows.items() if "." not in name}

        def tell(mlflow: "MlflowClient", run: str) -> None:
            mlflow.update_run(run, status="RUNNING")
            _params(mlflow, run, rows)
            for name, value in plain.items():
                mlflow.set_tag(run, name, value[:_TAG])

        self._tell(tell)

    def tags(self, values: Mapping[str, str]) -> None:
        """Say what is no number."""
        self._tell(lambda mlflow, run: [mlflow.set_tag(run, *one) for one in values.items()])

    def metrics(self, values: Mapping[str, float], done: int) -> None:
        """Log what was found so far, after so many experiments."""

        def tell(mlflow: "MlflowClient", run: str) -> None:
            for name, value in values.items():
                if math.isfinite(value):
                    mlflow.log_metric(run, _allowed(name), value, step=done)

        self._tell(tell)

    def file(self, path: Path) -> None:
        """Log a file."""
        self._tell(lambda mlflow, run: mlflow.log_artifact(run, str(path)))

    def end(self, status: Status) -> None:
        """Close the run."""
        self._tell(lambda mlflow, run: mlflow.set_terminated(run, status))

    def _tell(self, tell: "Callable[[MlflowClient, str], Any]") -> None:
        if self._warned:
            return  # once is enough, and each try costs seconds
        try:
            with alone():
                mlflow = client()
                at = experiment(mlflow, self._key.partition("/")[0])
                run = _study(mlflow, at, self._key)
            tell(mlflow, run)
        except Exception as error:  # whatever breaks in MLflow, days of training go on
            self._warned = True
            self._say(
                f"MLflow at {without_password(tracking_uri())} did not answer "
                f"({type(error).__name__}); the same command tells it later what the study says"
            )


def _log_data(mlflow: "MlflowClient", run: str, tags: Mapping[str, str]) -> None:
    """Log the version of data/ as the run's dataset; its bytes are DVC's."""
    from mlflow.entities import Dataset, DatasetInput

    if "dvc.data" in tags:
        digest = tags["dvc.data"].removesuffix(".dir")
        source = json.dumps({"path": str(paths.DATA), "md5": tags["dvc.data"]})
        dataset = Dataset(str(paths.DATA), digest, "dvc", source)
        mlflow.log_inputs(run, [DatasetInput(dataset)])


def _products(stage: str) -> dict[str, str]:
    """Return the tags that say which weights a stage made."""
    files = sorted((paths.ARTIFACTS / stage).rglob("*.safetensors"))
    return {product(file): _md5(file) for file in files}


def _section(name: str, profile: Profile) -> dict[str, str]:
    """Return the params of one stage, and the model's, which every training shares."""
    sections = profile.model_dump()
    return flat(sections.get(name) or {}) | flat({"model": sections["model"]})


def _params(mlflow: "MlflowClient", run: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    rows = [Param(name, value) for name, value in values.items()]
    for start in range(0, len(rows), 100):  # MLflow's limit for one call
        mlflow.log_batch(run, params=rows[start : start + 100])


def _bury_the_dead(mlflow: "MlflowClient", at: str) -> None:
    """End the runs of this machine whose process was killed without a chance to say so."""
    running = list(mlflow.search_runs([at], "attributes.status = 'RUNNING'"))
    dead = [run for run in running if _died_here(run.data.tags.get("atelier.process", ""))]
    alive = {run.data.tags.get("mlflow.parentRunId") for run in running if run not in dead}
    for run in dead:
        # A pipeline's run bears the process of its first stage, and lives with its latest.
        for ended in (run.info.run_id, run.data.tags.get("mlflow.parentRunId")):
            if ended is not None and ended not in alive:
                mlflow.set_terminated(ended, "KILLED")


def _died_here(ident: str) -> bool:
    return ident.startswith(f"{socket.gethostname()}/") and not _lives(ident)


def _pipeline() -> str:
    """Return what the stages of one pipeline run have in common."""
    given = os.environ.get(PIPELINE)
    if given:
        return given
    own = psutil.Process()
    return _ident(next(filter(_is_dvc, own.parents()), own))


def _is_dvc(process: psutil.Process) -> bool:
    """Say whether ``process`` is ``dvc …`` or ``python -m dvc …``."""
    try:
        words = process.cmdline()[:3]
    except psutil.Error:
        return False
    return "dvc" in [Path(word).name for word in words[:2]] or words[1:] == ["-m", "dvc"]


def _ident(process: psutil.Process) -> str:
    """Name a process for good: its number alone comes back."""
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"


def _lives(ident: str) -> bool:
    try:
        return _ident(psutil.Process(int(ident.split("/")[1]))) == ident
    except psutil.Error:
        return False


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


def _allowed(name: str) -> str:
    """Return ``name`` without what MLflow refuses in names, such as ``#``."""
    return re.sub(r"[^\w\-. :/]", "", name)


def _relative(path: Path) -> Path:
    """Return ``path`` as seen from here, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
