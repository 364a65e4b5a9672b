"""Flow ``sweep``: one run for each point of a grid, or of a search by Optuna, within a budget.

Each point is an experiment as ``atelier run --set`` makes one: in a copy of the repository, in
MLflow with the tag ``changed``, in ``dvc exp show`` under its settings. What an earlier sweep
trained comes from DVC's run cache, so the same command goes on where it was stopped.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml
from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict

from atelier.config.profile import read_in_force
from atelier.errors import ParamsError
from flows import pipeline, run_names
from flows.dvc import overrides, stages, workspace
from flows.dvc.overrides import Changes
from tasks.run import paths
from tasks.tracking import measured

_STUDIES = paths.ARTIFACTS / "sweeps"  # Optuna's own files
Point = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """The best θ of a point, and whether its FID is no worse than the base's."""

    painter: str
    negatives: float
    fid: float | None
    fits: bool


class Range(BaseModel):
    """Numbers from ``low`` to ``high`` in which Optuna searches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    high: float
    whole: bool = False  # whole numbers only
    log: bool = False  # evenly over orders of magnitude


Settings = dict[str, list[Any] | Range]


def parse(settings: Sequence[str]) -> Settings:
    """Return what ``name=1,2,4`` and ``name=1..8`` of the command line ask for.

    ``name=log:0.0001..0.01`` is searched over orders of magnitude.

    Raises:
        ParamsError: One is neither a list nor a range.
    """
    found: Settings = {}
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not name or not sign or not text:
            raise ParamsError(f"{setting}: give name=1,2,4 or name=1..8")
        found[name] = _range(setting, text) if ".." in text else _list(setting, text)
    return found


def _list(setting: str, text: str) -> list[Any]:
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        raise ParamsError(f"{setting}: {text!r} is no list of YAML values") from None
    return list(values)


def _range(setting: str, text: str) -> Range:
    low, _, high = text.removeprefix("log:").partition("..")
    try:
        ends = [float(low), float(high)]
    except ValueError:
        raise ParamsError(f"{setting}: a range is two numbers, as 1..8") from None
    log = text.startswith("log:")
    if not ends[0] < ends[1] or not all(map(math.isfinite, ends)) or (log and ends[0] <= 0):
        raise ParamsError(f"{setting}: a range goes upwards, and with log: from above 0")
    whole = not any(mark in text for mark in (".0", "e", "log:")) and all(
        end.strip("- ").isdigit() for end in (low, high)
    )
    return Range(low=ends[0], high=ends[1], whole=whole, log=log)


def check(settings: Settings, trials: int | None) -> None:
    """Refuse what does not fit before anything is run.

    Raises:
        ParamsError: A setting, a value or the number of trials does not fit.
    """
    ranges = [name for name, values in settings.items() if isinstance(values, Range)]
    if ranges and trials is None:
        raise ParamsError(f"{ranges[0]} is a range: give --trials, so many points are tried")
    if trials is not None:
        _optuna()
    for point in _corners(settings):
        overrides.check(Changes(others=point))


def _corners(settings: Settings) -> Iterator[Point]:
    """Yield points that have each listed value, and each end of a range."""
    first = {name: _ends(values)[0] for name, values in settings.items()}
    for name, values in settings.items():
        for value in _ends(values):
            yield first | {name: value}


def _ends(values: list[Any] | Range) -> list[Any]:
    if isinstance(values, Range):
        return [_number(values, end) for end in (values.low, values.high)]
    return values


def _number(within: Range, value: float) -> int | float:
    return round(value) if within.whole else value


@flow(flow_run_name=run_names.of_run, persist_result=False)
def sweep(
    settings: Settings, trials: int | None = None, minutes: float | None = None
) -> State[Any]:
    """Run the pipeline for each point of a grid, or for points that Optuna chooses.

    Args:
        settings: Values of each by its name, as `{"cpo.objectives.cpo-s.omega": [1, 2]}`.
        trials: Let Optuna choose so many points; none means the whole grid.
        minutes: No point begins after so many; none means no limit.
    """
    try:
        check(settings, trials)
    except ParamsError as error:
        return Failed(message=str(error))
    run = _Sweep(minutes)
    if trials is None:
        names = list(settings)
        for values in product(*(_ends(values) for values in settings.values())):
            if run.is_over():
                break
            run.try_out(dict(zip(names, values, strict=True)))
    else:
        _search(settings, trials, run)
    return run.end()


class _Sweep:
    """Points that were tried, and what they gave."""

    def __init__(self, minutes: float | None) -> None:
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._rows: list[dict[str, Any]] = []
        self._stopped = False

    def is_over(self) -> bool:
        """Say whether no point may begin any more."""
        self._stopped = time.monotonic() >= self._end
        return self._stopped

    def try_out(self, point: Point) -> Result | None:
        """Run one point as an experiment; None if it failed."""
        changes = Changes(others=point)
        number = len(self._rows) + 1
        get_run_logger().info(f"point {number}: {overrides.described(changes)}")
        state = pipeline.bring_up(stages.read(), force=False, wanted=changes, part=f"/{number}")
        found = _result() if state.is_completed() else None
        row: dict[str, Any] = {
            "point": overrides.described(changes),
            "outcome": state.name,
        }
        if found is not None:
            row |= {"best θ": found.painter, "#A_neg": found.negatives, "FID": found.fid}
        self._rows.append(row)
        return found

    def end(self) -> State[Any]:
        """Show all points, the best first; the sweep's state."""
        rows = sorted(self._rows, key=lambda row: row.get("#A_neg", math.inf))
        create_table_artifact(table=rows, key="sweep", description="Points, the best first")
        for row in rows:
            get_run_logger().info(_line(row))
        failed = sum("best θ" not in row for row in rows)
        text = f"{len(rows)} points" + (f", {failed} of them failed" if failed else "")
        text += ", and the time was over before the next" if self._stopped else ""
        if rows and "best θ" in rows[0]:
            text += f"; the best is {rows[0]['point']}: #A_neg {rows[0]['#A_neg']:.2f}"
        get_run_logger().info(text)
        return Failed(message=text) if failed else Completed(message=text)


def _line(row: dict[str, Any]) -> str:
    """Return a row of the table as a line of the log."""
    numbers = {name: f"{value:.2f}" for name, value in row.items() if isinstance(value, float)}
    rest = [f"{name} {value}" for name, value in (row | numbers).items() if name != "point"]
    return f"{row['point']}: {', '.join(rest)}"


def _result() -> Result | None:
    """Return what the last point's report says of its best θ."""
    profile = read_in_force(paths.PARAMS)
    found = measured.reported(profile, workspace.PLACE / paths.SUITES)
    thetas = [name for name in found.suites if name not in measured.NO_THETA]
    fit = measured.best(thetas, found)
    best = fit or min(thetas, key=lambda name: found.suites[name]["negatives"], default=None)
    if best is None:
        return None
    suite = found.suites[best]
    return Result(best, suite["negatives"], suite.get("fid"), fit is not None)


def _search(settings: Settings, trials: int, run: _Sweep) -> None:
    """Let Optuna choose points with fewer negatives; a FID above the base's is a failure."""
    optuna = _optuna()
    _STUDIES.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{(_STUDIES / 'optuna.db').resolve()}",
        study_name=_name(settings),
        sampler=optuna.samplers.TPESampler(seed=0),
        load_if_exists=True,
    )
    for _ in range(trials):
        if run.is_over():
            return
        trial = study.ask()
        found = run.try_out({name: _asked(trial, name, v) for name, v in settings.items()})
        if found is None or not found.fits:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, found.negatives)


def _asked(trial: Any, name: str, values: list[Any] | Range) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(name, values)
    if values.whole:
        return trial.suggest_int(name, round(values.low), round(values.high), log=values.log)
    # Rounded: the value names an experiment, and is typed again.
    return float(f"{trial.suggest_float(name, values.low, values.high, log=values.log):.4g}")


def _name(settings: Settings) -> str:
    plain = {k: v.model_dump() if isinstance(v, Range) else v for k, v in settings.items()}
    return json.dumps(plain, sort_keys=True)


def _optuna() -> Any:
    """Return Optuna, quiet.

    Raises:
        ParamsError: It is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ParamsError(
            "--trials needs Optuna: pip install -c constraints.txt -e '.[sweep]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
