"""Data of the live page: what a run's record, MLflow's store and the pictures' folders say."""

import functools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasks.run import paths
from tasks.tracking import run_record, sync

State = Literal["running", "finished", "failed", "stopped"]
_OUTCOMES = {"UpToDate": "unchanged", "RunCached": "restored"}  # others: it is done
_VERDICTS = {"up to date": "unchanged", "restore": "restored"}
_JOB = re.compile(r"generate-(?P<painter>.+)-[0-9a-f]{16}")
_SHOWN = 8  # pictures of one painter
_SETTLED_SECONDS = 0.5  # a file that changed later may change again within a clock's tick


@dataclass(frozen=True)
class Bar:
    """A progress bar.

    Attributes:
        seconds_left: Until its last step; None where its pace is not known yet.
        values: What its last report said, as the loss.
    """

    title: str
    done: int
    total: int
    seconds_left: float | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class StageView:
    """A stage on the page.

    Attributes:
        after: The stages that it comes right after.
        state: unchanged, restored, running, done, failed, stopped, waits, or not reached.
        reasons: Why it runs.
        seconds: That it took, so far.
        bar: What it is doing now, or did last.
    """

    name: str
    about: str
    after: Sequence[str]
    state: str
    reasons: Sequence[str]
    seconds: float | None
    bar: Bar | None


@dataclass(frozen=True)
class Price:
    """What a run has cost so far.

    Attributes:
        gpu_seconds: Seconds times GPUs; 0 where there was none.
        cpu_seconds: Of all processors together.
        policy_passes: Images that went through the network and back.
        frozen_passes: Images that went through it without a gradient.
        judged: Price of a model's answers, in the currency of the profile.
    """

    gpu_seconds: float
    cpu_seconds: float
    policy_passes: float
    frozen_passes: float
    judged: float

    def money(self, hour: float) -> float:
        """Return its price where an hour of a GPU, or of a core without one, costs ``hour``."""
        return (self.gpu_seconds or self.cpu_seconds) / 3600 * hour + self.judged


@dataclass(frozen=True)
class Painted:
    """Pictures that one painter has generated.

    Attributes:
        files: The first few, by the number of their caption.
        count: Of all that are there.
    """

    painter: str
    files: Sequence[Path]
    count: int


@dataclass(frozen=True)
class Run:
    """A run of the pipeline.

    Attributes:
        key: Of its folder, and of its page.
        noted: What ``run.json`` says.
        seconds: That it took, so far.
    """

    key: str
    noted: Mapping[str, Any]
    state: State
    began: float
    seconds: float
    stages: Sequence[StageView] = ()
    price: Price = field(default_factory=lambda: Price(0, 0, 0, 0, 0))


def newest() -> list[str]:
    """Return the keys of all runs, the newest first."""
    found = {
        file.parent.name: _noted(file).get("began", 0.0)
        for file in paths.LIVE.glob(f"*/{run_record.RUN}")
    }
    return sorted(found, key=lambda key: found[key], reverse=True)


def read(key: str) -> Run | None:
    """Return a run; None if there is none of this key."""
    folder = paths.LIVE / key
    noted = _noted(folder / run_record.RUN)
    if "began" not in noted:
        return None
    records = _records(folder)
    planned: Mapping[str, Any] = noted.get("stages", {})
    order = [*planned, *(name for name in records if name not in planned)]
    state = _state(noted, records, order)
    stages = [
        _stage(name, noted, records, order[place + 1 :], state)
        for place, name in enumerate(order)
    ]
    now = time.time()
    moved = max((_last(record) for record in records.values()), default=noted["began"])
    end = now if state == "running" else noted.get("ended") or moved
    price = _price(records, now)
    return Run(key, noted, state, noted["began"], end - noted["began"], stages, price)


def seconds_left(run: Run, past: Mapping[str, float]) -> tuple[float, list[str]] | None:
    """Return how long a run will take, and the stages of which that is not known.

    Args:
        run: One that runs.
        past: Seconds that each stage took when it ran last, by its name.
    """
    total, unknown = 0.0, []
    for stage in run.stages:
        if stage.state == "running":
            bar = stage.bar.seconds_left if stage.bar else None
            before = past[stage.name] - (stage.seconds or 0) if stage.name in past else None
            known = [one for one in (bar, before) if one is not None]
            total += max(0.0, *known) if known else 0.0
            unknown += [stage.name] * (not known)
        elif stage.state == "waits" and run.noted["stages"][stage.name]["verdict"] in _TAKES:
            total += past.get(stage.name, 0.0)
            unknown += [stage.name] * (stage.name not in past)
    return (total, unknown) if total else None


_TAKES = {"run", "depends"}


def painted(run: Run) -> list[Painted]:
    """Return what the stage ``generate`` of a run has painted, as far as it is still there."""
    record = _records(paths.LIVE / run.key).get("generate")
    if record is None or any(
        _began(other) > record["began"] for other in newest() if other != run.key
    ):
        return []  # the folder has a later run's
    root = Path(record["folder"])
    folders = {one.name: one for one in sorted((root / paths.GENERATE).glob("*"))}
    for one in sorted((root / paths.RESUME).glob("generate-*")):
        if (job := _JOB.fullmatch(one.name)) is not None:
            folders.setdefault(job["painter"], one / "pictures")
    every = {name: sorted(folder.glob("*.png")) for name, folder in folders.items()}
    return [Painted(name, one[:_SHOWN], len(one)) for name, one in every.items() if one]


def _began(key: str) -> float:
    return float(_noted(paths.LIVE / key / "generate.json").get("began", 0.0))


def _noted(file: Path) -> Mapping[str, Any]:
    """Return what a file of the record says; it is read again only after it has changed."""
    try:
        return _read(file, version(file))
    except OSError:
        return {}


@functools.lru_cache(maxsize=4096)
def _read(file: Path, changed: tuple[int, int]) -> Mapping[str, Any]:
    del changed  # here it is only a part of the key
    return run_record.read(file)


def version(file: Path) -> tuple[int, int]:
    """Return a cache's key for what a file holds: another one after each change.

    Raises:
        OSError: The file is absent.
    """
    now = file.stat()
    if time.time() - now.st_mtime < _SETTLED_SECONDS:
        return 0, time.time_ns()
    return now.st_ino, now.st_mtime_ns


def _records(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return what stages recorded, in the order of their beginning."""
    found = [_noted(file) for file in folder.glob("*.json")]
    known = [one for one in found if "stage" in one]
    return {one["stage"]: one for one in sorted(known, key=lambda one: float(one["began"]))}


def _state(
    noted: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], order: Sequence[str]
) -> State:
    lives = sync.lives(noted["process"])
    if noted.get("state") is not None:
        return noted["state"]  # type: ignore[no-any-return]
    if lives:
        return "running"
    states = {_state_of(record) for record in records.values()}
    if "failed" in states:
        return "failed"
    # DVC tells nobody how it ended: with all of its stages, if the last one is done.
    asked = [
        name
        for name in order
        if noted.get("stages", {}).get(name, {}).get("verdict") != "up to date"
    ]
    whole = all(name in records for name in asked[-1:])
    return "finished" if states == {"done"} and whole else "stopped"


def _state_of(record: Mapping[str, Any]) -> str:
    if "state" not in record:
        return "running" if sync.lives(record["process"]) else "stopped"
    return "done" if record["state"] == "finished" else str(record["state"])


def _stage(
    name: str,
    noted: Mapping[str, Any],
    records: Mapping[str, Mapping[str, Any]],
    later: Sequence[str],
    state: State,
) -> StageView:
    planned: Mapping[str, Any] = noted.get("stages", {}).get(name, {})
    record = records.get(name)
    return StageView(
        name,
        planned.get("about", ""),
        planned.get("after", ()),
        _state_of(record) if record else _state_without(name, noted, records, later, state),
        planned.get("reasons", ()),
        _last(record) - record["began"] if record else None,
        _bar(record) if record else None,
    )


def _state_without(
    name: str,
    noted: Mapping[str, Any],
    records: Mapping[str, Any],
    later: Sequence[str],
    state: State,
) -> str:
    """Return the state of a stage of which no process of its own was seen."""
    if (outcome := noted.get("outcomes", {}).get(name)) is not None:
        return _OUTCOMES.get(outcome, "done")
    verdict = noted.get("stages", {}).get(name, {}).get("verdict")
    if any(one in records for one in later) or state == "finished":
        return _VERDICTS.get(verdict, "done")
    if verdict == "up to date":
        return "unchanged"
    return "waits" if state == "running" else "not reached"


def _bar(record: Mapping[str, Any]) -> Bar | None:
    if not record.get("bars"):
        return None
    last = record["bars"][-1]
    left = None
    if last["rate"] and "state" not in record:
        left = (last["total"] - last["done"]) / last["rate"] - (time.time() - last["moved"])
        left = max(left, 0.0)
    return Bar(last["title"], last["done"], last["total"], left, last["values"])


def _last(record: Mapping[str, Any]) -> float:
    """Return when a stage ended, is running, or gave its last sign."""
    if "ended" in record:
        return float(record["ended"])
    if sync.lives(record["process"]):
        return time.time()
    moved = [float(bar["moved"]) for bar in record.get("bars", ())]
    return max([float(record["began"]), *moved])


def _price(records: Mapping[str, Mapping[str, Any]], now: float) -> Price:
    gpu = cpu = policy = frozen = judged = 0.0
    for record in records.values():
        gpu += record.get("gpus", 0) * (_last(record) - record["began"])
        cpu += record.get("cpu_seconds", 0.0)
        for bar in record.get("bars", ()):
            steps = bar["done"] - (bar["first"] or 0)
            costs: Mapping[str, float] = record.get("passes", {}).get(bar["title"], {})
            policy += steps * costs.get("policy", 0.0)
            frozen += steps * costs.get("frozen", 0.0)
            judged += bar["values"].get("cost", 0.0) - (bar["cost_before"] or 0.0)
    return Price(gpu, cpu, policy, frozen, judged)


def waiting_for_a_plan() -> Iterator[str]:
    """Yield the names of the runs that DVC runs now and whose plan is not noted."""
    for key in newest():
        noted = _noted(paths.LIVE / key / run_record.RUN)
        if "stages" not in noted and sync.lives(noted["process"]):
            yield noted["run"]
