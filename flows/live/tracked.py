"""Curves and validation images of a run, as MLflow's store of this repository has them."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from flows.live import runs
from tasks.run import paths
from tasks.tracking import connection, sync

if TYPE_CHECKING:
    from mlflow import MlflowClient

Points = list[tuple[float, float]]
_OF_THE_MACHINE = "system/"
_IMAGE = re.compile(r"(?P<name>.+)[+%]step[+%](?P<step>\d+)[+%]")  # MLflow's name of a file
_POINTS = 400  # of a curve; more cannot be told apart on a page


@dataclass(frozen=True)
class Validation:
    """One validation image of a training.

    Attributes:
        name: Of the model, and the word grid.
        step: After which it was painted.
        file: Where it lies.
    """

    name: str
    step: int
    file: Path


@dataclass(frozen=True)
class Tracked:
    """What MLflow has of a run of the pipeline.

    Attributes:
        name: As MLflow's list calls it; None where it has no such run.
        curves: Points of each value, by value and by what was trained.
        pictures: Validation images, the latest first.
    """

    name: str | None
    curves: Mapping[str, Mapping[str, Points]]
    pictures: list[Validation]


def of(run: str) -> Tracked:
    """Return what is known of a run; MLflow takes seconds to import, the first time."""
    file = paths.MLFLOW / "mlflow.db"
    if not file.is_file():
        return Tracked(None, {}, [])
    name, curves, folders = _stored(run, runs.version(file))
    pictures = [one for folder in folders for one in _pictures(folder)]
    pictures.sort(key=lambda one: (one.name, -one.step))
    return Tracked(name, curves, pictures)


@functools.lru_cache(maxsize=16)
def _stored(
    run: str, changed: tuple[int, int]
) -> tuple[str | None, Mapping[str, Mapping[str, Points]], list[Path]]:
    """Return a run's name, its curves, and the folders of its images."""
    del changed  # the version of MLflow's file; here it is only a part of the key
    mlflow = _client(Path.cwd())
    every = [one.experiment_id for one in mlflow.search_experiments()]
    wanted = f"tags.`{sync.PIPELINE}` = '{run}'"
    found = mlflow.search_runs(every, wanted, max_results=1)
    if not found:
        return None, {}, []
    curves: dict[str, dict[str, Points]] = {}
    folders = []
    for one in _below(mlflow, every, found[0].info.run_id):
        name = one.data.tags.get("objective") or one.info.run_name
        for value, points in _curves(mlflow, one).items():
            curves.setdefault(value, {})[name] = points
        folders.append(Path(unquote(urlsplit(one.info.artifact_uri).path)) / "images")
    return found[0].info.run_name, curves, folders


@functools.lru_cache(maxsize=1)
def _client(root: Path) -> "MlflowClient":
    del root  # the repository's; here it is only the key
    return connection.client(here=True)


def _below(mlflow: "MlflowClient", every: list[str], parent: str) -> Iterator[Any]:
    """Yield the runs of the stages, and of their parts, in the order of their beginning."""
    order = ["attributes.start_time ASC"]
    for stage in mlflow.search_runs(
        every, f"tags.`{sync.PARENT}` = '{parent}'", order_by=order
    ):
        yield stage
        below = f"tags.`{sync.PARENT}` = '{stage.info.run_id}'"
        yield from mlflow.search_runs(every, below, order_by=order)


def _curves(mlflow: "MlflowClient", run: Any) -> dict[str, Points]:
    names = [name for name in run.data.metrics if not name.startswith(_OF_THE_MACHINE)]
    if run.info.status != "RUNNING":
        return _ended(mlflow, run.info.run_id, tuple(names))
    return _histories(mlflow, run.info.run_id, names)


@functools.lru_cache(maxsize=256)
def _ended(mlflow: "MlflowClient", run: str, names: tuple[str, ...]) -> dict[str, Points]:
    return _histories(mlflow, run, names)


def _histories(mlflow: "MlflowClient", run: str, names: Any) -> dict[str, Points]:
    """Return the values that have several points: those with one are results."""
    found = {}
    for name in names:
        history = {one.step: one.value for one in mlflow.get_metric_history(run, name)}
        points = sorted((float(step), float(value)) for step, value in history.items())
        if len(points) > 1:
            found[name] = points[:: -(-len(points) // _POINTS)]
    return found


def _pictures(folder: Path) -> Iterator[Validation]:
    for file in folder.glob("*.png"):
        if (found := _IMAGE.match(file.name)) is not None:
            yield Validation(found["name"], int(found["step"]), file)
