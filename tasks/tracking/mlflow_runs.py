"""MLflow runs: one for each stage, for a whole pipeline, and for each trained objective.

How it is laid out, so that runs compare well in MLflow's pages:

* one experiment for each profile, ``atelier-<profile>``: two profiles' numbers do not compare;
* one parent run for a whole ``dvc repro`` or flow run, with the profile's params
  (``cpo.lora.rank``) and the results of its stages (``evaluate.fid``): the experiment's list
  compares pipeline runs, without opening any;
* one child for each stage, named after it, with its own section's params (``lora.rank``),
  curves, pictures and files: filter by ``tags.stage = "cpo"`` to compare trainings;
* below stage ``cpo`` one child for each objective, with that objective's params, curves and
  results. It is the source run of the model version that it made, so that MLflow's pages
  compare versions by it.

A study's pipeline runs are children of its own run, in an experiment ``atelier-<study>``.

All stages of one flow run share the parent by the environment variable ATELIER_PIPELINE;
those of one ``dvc repro`` by that process. A stage run by hand has a parent of its own. The
parent has the state and end of its latest child.

A stage writes its run to MLflow's SQLite file of this repository, and nowhere else. Where
MLflow is a server, a process of its own copies the runs there (``tasks.tracking.sync``): every
few seconds, at the stage's end, at the next stage's beginning, and when the registry is
reconciled. MLflow being away, slow or hanging costs a stage a bounded wait at its end.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
import yaml

from atelier.config.profile import Profile, read_in_force, read_switch
from tasks.run import git, paths
from tasks.tracking import (
    connection,
    data_version,
    links,
    main_repository,
    measured,
    run_names,
    sync,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from PIL import Image

FLOW_PAGE = "ATELIER_FLOW_PAGE"  # variable: the page of the flow run that started the stage
PIPELINE = "ATELIER_PIPELINE"  # names the pipeline run that a stage belongs to
STUDY = "ATELIER_STUDY"  # names the study that a pipeline run belongs to, as NAME/<settings>
Status = Literal["FINISHED", "FAILED", "KILLED"]
_SECONDS_BETWEEN_LOOKS = 10
_RESULT = " → "  # before the results in the name of a pipeline's run
_TAG = 5000  # characters of a tag that MLflow takes anywhere
_SOURCE = "mlflow.source.name"
_NOTE = "mlflow.note.content"  # the description of a run
_SHARED = {
    sync.PROCESS,
    "profile",
    "experiment",
    "dvc.data",
    "mlflow.source.git.commit",
    "git.dirty",
}
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a run is in MLflow.

    Attributes:
        run: Its id.
        parent: The id of the run that also gets its results, tags and end, if any.
        prefix: Of the names of results and tags there.
        weights: The folder whose weights the run makes.
    """

    run: str
    parent: str | None = None
    prefix: str = ""
    weights: Path | None = None


@contextlib.contextmanager
def stage(name: str, profile: Profile, *, later: bool = False) -> Iterator["StageRun"]:
    """Track one stage; its run ends as finished, failed, or killed (SIGTERM, Ctrl-C).

    Args:
        name: Of the stage.
        profile: In force.
        later: Whether the stage opens the run itself, as trainings do beside their first steps;
            what fails before that has a run, too.
    """
    began = time.time_ns() // 1_000_000
    with StageRun.begun(
        lambda mlflow: _stage(mlflow, name, profile, began),
        _log.warning,
        later=later,
    ) as run:
        yield run


@contextlib.contextmanager
def study(
    key: str, settings: Mapping[str, Any], tell: Callable[[str], None]
) -> Iterator["StageRun"]:
    """Track a whole study: its pipeline runs are children of one run that says what it is.

    Args:
        key: As ``STUDY`` has it; the same settings go on under the same run.
        settings: Of the study.
        tell: Called with a line if something is wrong with MLflow.
    """
    with StageRun.begun(lambda mlflow: _whole_study(mlflow, key, settings), tell) as run:
        yield run


def _guarded(method: Callable[..., None]) -> Callable[..., None]:
    """Log nothing for a run that was not begun; whatever breaks, hours of training go on."""

    @functools.wraps(method)
    def guarded(self: "StageRun", *words: Any, **named: Any) -> None:
        self._open()
        if not self._at.run:
            return
        try:
            method(self, *words, **named)
        except Exception as error:
            self._warn(f"MLflow has not all of this run: {type(error).__name__}: {error}")

    return guarded


class StageRun:
    """The run of a stage, of a part of one, or of a study; made by ``stage`` and ``study``.

    One that was not begun logs nothing: of several processes that train together, only the
    first has a run.
    """

    def __init__(self, tell: Callable[[str], None] = _log.warning) -> None:
        self._tell, self._warned = tell, False
        self._make: Callable[[], None] | None = None  # opens the run, until it is open
        self._opening = threading.RLock()
        self._at = _Place("")
        self._mlflow: Any = None
        self._monitor: SystemMetricsMonitor | None = None
        self._sync: sync.Process | None = None
        self._last = 0  # step of the curves so far

    @classmethod
    @contextlib.contextmanager
    def begun(
        cls,
        make: "Callable[[MlflowClient], _Place]",
        tell: Callable[[str], None],
        *,
        later: bool = False,
    ) -> Iterator["StageRun"]:
        """Open a run; it ends as the block inside ends.

        Args:
            make: Makes it.
            tell: Called with a line if something is wrong with MLflow.
            later: Open it when ``begin`` or something else is first called.
        """
        run = cls(tell)
        run._make = functools.partial(run._connect, make)
        if not later:
            run._open()
        with run._ended():
            yield run

    def begin(self, *, beside: bool = False) -> None:
        """Open the run, unless it is open.

        Args:
            beside: In a thread, for MLflow takes seconds to import: beside steps that leave
                Python's lock alone and silence no warnings. Calls that come before it is open
                wait for it.
        """
        if beside and self._make is not None:
            threading.Thread(target=self._open, name="mlflow", daemon=True).start()
        else:
            self._open()

    def _open(self) -> None:
        with self._opening:
            make, self._make = self._make, None
            if make is not None:
                make()

    def _connect(self, make: "Callable[[MlflowClient], _Place]") -> None:
        try:
            self._mlflow = connection.client(here=True)
            self._at = make(self._mlflow)
            if self._at.parent:
                self._watch_the_machine()
            self._sync = sync.Process() if connection.is_away() else None
        except Exception as error:
            self._warn(f"MLflow has no run of this: {type(error).__name__}: {error}")

    @_guarded
    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log a point of each curve; without ``step``, a result, also put on the parent."""
        self._last = max(self._last, step or 0)
        # A result named as a curve is its last point, not one more at its beginning.
        self._log(self._at.run, values, self._last if step is None else step)
        if step is None and self._at.parent:
            results = {f"{self._at.prefix}{name}": value for name, value in values.items()}
            self._log(self._at.parent, results, 0)

    @_guarded
    def picture(self, name: str, picture: "Image.Image", step: int | None = None) -> None:
        """Log a picture; those of one name scroll through their steps in MLflow's page."""
        if step is None:
            file = f"{_allowed(name)}.png"
            self._mlflow.log_image(self._at.run, picture, artifact_file=file)
        else:
            run, key = self._at.run, _allowed(name)
            self._mlflow.log_image(run, picture, key=key, step=step, synchronous=True)

    @_guarded
    def file(self, path: Path) -> None:
        """Log a file, or a folder with all that is in it."""
        if path.is_dir():
            self._mlflow.log_artifacts(self._at.run, str(path), artifact_path=path.name)
        else:
            self._mlflow.log_artifact(self._at.run, str(path))

    @_guarded
    def tags(self, values: Mapping[str, str]) -> None:
        """Log what is no number, such as why one is absent; also on the parent."""
        for said, value in values.items():
            name = _allowed(said)
            self._mlflow.set_tag(self._at.run, name, value[:_TAG])
            if self._at.parent:
                self._mlflow.set_tag(self._at.parent, f"{self._at.prefix}{name}", value[:_TAG])

    @contextlib.contextmanager
    def part(
        self, name: str, settings: Mapping[str, Any], weights: Path
    ) -> Iterator["StageRun"]:
        """Track a part of the stage that makes a model of its own, in a run below this one.

        Args:
            name: Of the objective.
            settings: With which it is trained.
            weights: The folder to which its weights are written.
        """
        own = StageRun(self._tell)
        own._make = functools.partial(self._begin_part, own, name, settings, weights)
        if self._make is None:
            own._open()
        with own._ended():
            yield own

    @_guarded
    def _begin_part(
        self, own: "StageRun", name: str, settings: Mapping[str, Any], weights: Path
    ) -> None:
        above = self._mlflow.get_run(self._at.run)
        shared = {k: v for k, v in above.data.tags.items() if k in _SHARED}
        own._mlflow = self._mlflow
        run = _made(
            self._mlflow,
            above.info.experiment_id,
            name,
            {**shared, "objective": name, sync.PARENT: self._at.run},
            flat(settings),
        )
        own._at = _Place(run, weights=weights)

    @contextlib.contextmanager
    def _ended(self) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self._end("KILLED")
            raise
        except BaseException:
            self._end("FAILED")
            raise
        self._end("FINISHED")

    @_guarded
    def _end(self, status: Status) -> None:
        if self._monitor is not None:
            self._monitor.finish()
        if status == "FINISHED" and self._at.weights == paths.REPORT:
            self._put_results_in_the_name()
        if status == "FINISHED" and self._at.weights is not None:
            for tag, md5 in _products(self._at.weights).items():
                self._mlflow.set_tag(self._at.run, tag, md5)
        for run in filter(None, (self._at.run, self._at.parent)):
            self._mlflow.set_terminated(run, status)
        if self._sync is not None and not self._sync.finish(stopped=status == "KILLED"):
            self._warn(
                f"MLflow at {connection.tracking_uri()} did not answer; the run is kept in "
                f"{paths.MLFLOW} and delivered later"
            )

    def _put_results_in_the_name(self) -> None:
        """Put the best θ's results on the pipeline's run, and in its name for lists."""
        best = _best()
        if best is None or self._at.parent is None:
            return
        painter, suite = best
        values = {"A_neg": suite["negatives"]}
        said = f"#A_neg {suite['negatives']:.2f}"
        if (fid := suite.get("fid")) is not None:
            values["FID"] = fid
            said += f", FID {fid:.2f}"
        self._log(self._at.parent, values, 0)
        known = self._mlflow.get_run(self._at.parent).info.run_name.partition(_RESULT)[0]
        name = f"{known}{_RESULT}{painter} {said}"
        self._mlflow.set_tag(self._at.parent, "mlflow.runName", name)

    def _log(self, run: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        at = time.time_ns() // 1_000_000
        # A database refuses NaN and infinity in its own ways: leave a gap in the curve.
        points = [
            Metric(_allowed(name), float(value), at, step)
            for name, value in values.items()
            if math.isfinite(value)
        ]
        self._mlflow.log_batch(run, metrics=points)

    def _watch_the_machine(self) -> None:
        """Log how busy CPU, memory, disk and GPUs are, every few seconds, until the end."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        self._monitor = SystemMetricsMonitor(
            self._at.run,
            sampling_interval=_SECONDS_BETWEEN_LOOKS,
            tracking_uri=self._mlflow.tracking_uri,
        )
        self._monitor.start()

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._tell(connection.without_password(message))
        self._warned = True


def provenance(stage: str | None = None) -> dict[str, str]:
    """Return tags that say from which code and data a run comes.

    Args:
        stage: The stage that runs now, on data/ as it is; None: what dvc.lock has.
    """
    tags: dict[str, str] = {}
    revision = git.answer("rev-parse", "HEAD")
    if revision:
        # dvc.lock changes while the stages run; it is a result, not a cause.
        changes = git.answer(*git.CHANGES)
        tags |= {"mlflow.source.git.commit": revision, "git.dirty": str(bool(changes)).lower()}
    data = data_version.of_run(stage) if stage else data_version.locked()
    if data is not None:
        tags["dvc.data"] = data
    if (experiment := main_repository.experiment()) is not None:
        tags["experiment"] = experiment
    if paths.DVC_LOCK.is_file():
        tags["dvc.lock"] = md5(paths.DVC_LOCK)  # as the run began
    if paths.JUDGED_BY.is_file():
        judged_by = yaml.safe_load(paths.JUDGED_BY.read_text(encoding="utf-8"))
        tags["criteria"] = f"{judged_by['domain']} {judged_by['version']}"
    return tags


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


def _stage(mlflow: "MlflowClient", name: str, profile: Profile, began: int) -> _Place:
    """Open a stage's run, which began at a time in milliseconds, below that of its pipeline."""
    profile_name, study_key = read_switch(paths.SWITCH), os.environ.get(STUDY)
    common = provenance(name) | {
        "profile": profile_name,
        "mlflow.source.type": "LOCAL",
        sync.PROCESS: sync.ident(psutil.Process()),
    }
    own = common | {"stage": name, _SOURCE: f"python -m tasks {name}"}
    sections = profile.model_dump()
    params = flat(sections.get(name) or {}) | flat({"model": sections["model"]})
    with connection.alone():
        of = study_key.partition("/")[0] if study_key else profile_name
        at = connection.experiment(mlflow, of)
        sync.bury_the_dead(mlflow, [at])
        parent = _parent(mlflow, at, study_key, common, flat(sections))
        run = _made(mlflow, at, name, own | {sync.PARENT: parent}, params, began)
    weights = paths.ARTIFACTS / name
    return _Place(run, parent, f"{name}.", weights)


def _parent(
    mlflow: "MlflowClient",
    at: str,
    study_key: str | None,
    common: Mapping[str, str],
    params: Mapping[str, str],
) -> str:
    """Return the run of the pipeline, made if need be, below that of its study."""
    key, _ = pipeline()
    command = "atelier run" if PIPELINE in os.environ else "dvc repro"
    changed = main_repository.experiment() or run_names.said(run_names.differences())
    tags = {**common, sync.PIPELINE: key, _SOURCE: command, "changed": changed or "nothing"}
    name = os.environ.get(run_names.NAME) or run_names.of(common["profile"], changed)
    if page := os.environ.get(FLOW_PAGE):
        tags |= {"prefect": page, _NOTE: f"[Prefect's run]({page})"}
    if study_key:
        name = key.rpartition("/")[2]
        tags[sync.PARENT] = _known_study(mlflow, at, study_key, {})
    links.prepare(mlflow, at)
    return _known_or_made(mlflow, at, (sync.PIPELINE, key), name, tags, params)


def pipeline_pages(profile: str, key: str) -> dict[str, str]:
    """Return the pages of a pipeline's run, its report, and the profile's runs and models.

    The run's description has links to them, too, and to its flow run.
    """
    others = links.of_profile(profile)
    with connection.alone():
        mlflow = connection.client()
        found = mlflow.get_experiment_by_name(f"atelier-{profile}")
        if found is None:
            return others
        at = str(found.experiment_id)
        run = sync.sole(mlflow, at, (sync.PIPELINE, key))
        if run is None:
            return others
        own = {}
        below = f"tags.`{sync.PARENT}` = '{run}' and tags.stage = 'report'"
        for report in mlflow.search_runs([at], below, max_results=1):
            own["its report"] = links.run(at, str(report.info.run_id), paths.PAGE.name)
        linked = {
            "Prefect's run": mlflow.get_run(run).data.tags.get("prefect"),
            **own,
            **others,
        }
        said = [f"[{what}]({page})" for what, page in linked.items() if page]
        mlflow.set_tag(run, _NOTE, " · ".join(said))
    return {"this run": links.run(at, run), **own, **others}


def _whole_study(mlflow: "MlflowClient", key: str, settings: Mapping[str, Any]) -> _Place:
    with connection.alone():
        at = connection.experiment(mlflow, key.partition("/")[0])
        return _Place(_known_study(mlflow, at, key, flat(settings)))


def _known_study(mlflow: "MlflowClient", at: str, key: str, settings: Mapping[str, str]) -> str:
    """Return the run of a study: its settings are params, the plain ones also tags."""
    plain = {name: value[:_TAG] for name, value in settings.items() if "." not in name}
    tags = provenance() | {sync.STUDY: key, _SOURCE: "atelier study"} | plain
    name = key.partition("/")[0]
    return _known_or_made(mlflow, at, (sync.STUDY, key), name, tags, settings)


def _known_or_made(
    mlflow: "MlflowClient",
    at: str,
    key: tuple[str, str],
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, str],
) -> str:
    """Return the run with this tag, which runs again, with all of its params."""
    known = sync.sole(mlflow, at, key)
    if known is None:
        return _made(mlflow, at, name, tags, params)
    mlflow.update_run(known, status="RUNNING")
    sync.log_params(mlflow, known, params)  # who made it may have been killed before this
    sync.wait_for(mlflow.get_run(known))
    return known


def _made(
    mlflow: "MlflowClient",
    at: str,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, str],
    began: int | None = None,
) -> str:
    made = mlflow.create_run(at, start_time=began, run_name=name, tags=dict(tags))
    run = str(made.info.run_id)
    _log_data(mlflow, run, tags)
    sync.log_params(mlflow, run, params)
    sync.wait_for(made)
    return run


def _log_data(mlflow: "MlflowClient", run: str, tags: Mapping[str, str]) -> None:
    """Log the version of data/ as the run's dataset; its bytes are DVC's."""
    from mlflow.entities import Dataset, DatasetInput

    if "dvc.data" in tags:
        digest = tags["dvc.data"].removesuffix(".dir")
        source = json.dumps({"path": str(paths.DATA), "md5": tags["dvc.data"]})
        dataset = Dataset(str(paths.DATA), digest, "dvc", source)
        mlflow.log_inputs(run, [DatasetInput(dataset)])


def _products(folder: Path) -> dict[str, str]:
    """Return the tags that say which weights lie in a folder, not in those below it."""
    return {product(file): md5(file) for file in sorted(folder.glob("*.safetensors"))}


def pipeline() -> tuple[str, psutil.Process]:
    """Return what the stages of one pipeline run have in common, and the process that runs it.

    Under a flow, which notes its own process, the second is that of DVC.
    """
    own = psutil.Process()
    process = next(filter(_is_dvc, own.parents()), own)
    return os.environ.get(PIPELINE) or sync.ident(process), process


def _is_dvc(process: psutil.Process) -> bool:
    """Say whether ``process`` is ``dvc …`` or ``python -m dvc …``."""
    try:
        words = process.cmdline()[:3]
    except psutil.Error:
        return False
    return "dvc" in [Path(word).name for word in words[:2]] or words[1:] == ["-m", "dvc"]


def _best() -> tuple[str, Mapping[str, Any]] | None:
    """Return the θ with the fewest negatives of those that the champion's guard lets pass.

    Without such, the one with the fewest negatives; None where none was measured.
    """
    if not paths.SUITES.is_file():
        return None
    found = measured.reported(read_in_force(paths.PARAMS))
    thetas = [name for name in found.suites if name not in measured.NO_THETA]
    best = measured.best(thetas, found) or min(
        thetas, key=lambda name: found.suites[name]["negatives"], default=None
    )
    return None if best is None else (best, found.suites[best])


def md5(file: Path) -> str:
    """Return the md5 of a file's bytes, as DVC counts it."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


def _allowed(name: str) -> str:
    """Return ``name`` without what MLflow refuses in names, such as ``#``."""
    return re.sub(r"[^\w\-. :/]", "", name)
