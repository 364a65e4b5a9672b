"""Bring the pipeline up to date: one Prefect task for each stage of dvc.yaml.

Prefect decides when and where, DVC decides whether: a task's state is named after what DVC
did (``Ran``, ``RunCached``, ``UpToDate``), and Prefect's own caching is off, for two caches
would be two truths.
"""

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed
from prefect.tasks import Task

from atelier.params import read_switch
from flows import limits, running, stages
from flows.stages import Stage
from tasks import paths, tracking

_LOCK = Path(".dvc/tmp/atelier-flow.lock")


def _flow_run_name() -> str:
    """Name the run after the profile and what was asked for."""
    targets = runtime.flow_run.parameters.get("targets")
    return f"{read_switch(paths.SWITCH)}: {', '.join(targets) if targets else 'all stages'}"


@flow(flow_run_name=_flow_run_name, persist_result=False)
def reproduce(targets: list[str] | None = None, force: bool = False) -> State[Any]:
    """Run the stages of dvc.yaml, in its order, each where its ``meta`` says.

    Args:
        targets: Stages to bring up to date, with what they need; none means all.
        force: Run them even if nothing changed.
    """
    order = stages.read(targets or ())
    limits.ensure_gpu()
    pipeline = f"prefect/{runtime.flow_run.id or uuid4()}"
    runs: dict[str, PrefectFuture[Any]] = {}
    with _repository_alone():
        try:
            for stage in order:
                runs[stage.name] = _submit(stage, force, pipeline, runs)
            wait(list(runs.values()))
        except BaseException:  # cancelled: Prefect unwinds us, and knows nothing of processes
            running.stop_all()
            raise
        _reconcile_registry()
    return _summary(order, runs)


def _may_help(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Say whether a retry may help: not a stage that was stopped, nor a person's mistake."""
    del task, task_run
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, running.StageFailedError) and error.final)


@task(
    task_run_name="{stage.name}",
    persist_result=False,
    cache_policy=NO_CACHE,
    retry_delay_seconds=10,
    retry_condition_fn=_may_help,
)
def run_stage(stage: Stage, force: bool, pipeline: str) -> State[Any]:
    """Bring one stage up to date; its state is named after what DVC did."""
    started = time.monotonic()
    shown = _Progress(stage.name)
    with _gpu_slot(stage, force):
        outcome = running.run(
            stage,
            force=force,
            environment={tracking.PIPELINE: pipeline},
            tell=shown.line,
        )
    seconds = round(time.monotonic() - started, 1)
    return Completed(name=outcome, message=f"DVC: {outcome}", data=seconds)


class _Progress:
    """A stage's lines in the log, and a progress artifact for each bar among them."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._log = get_run_logger()
        self._artifacts: dict[str, UUID] = {}

    def line(self, line: str) -> None:
        if line.strip():
            self._log.info(line)
        step = running.step(line)
        if step is None:
            return
        about = " · ".join(filter(None, [self._stage, step.title, step.rest]))
        if step.title not in self._artifacts:
            made = create_progress_artifact(0.0, description=about)
            assert isinstance(made, UUID)  # a coroutine only inside an event loop
            self._artifacts[step.title] = made
        update_progress_artifact(self._artifacts[step.title], step.percent, description=about)


def _submit(
    stage: Stage, force: bool, pipeline: str, runs: Mapping[str, PrefectFuture[Any]]
) -> PrefectFuture[Any]:
    needs = [runs[need] for need in stage.needs]
    placed = run_stage.with_options(
        retries=stage.meta.retries, tags=["gpu"] if stage.meta.gpu else ["cpu"]
    )
    return placed.submit(stage, force, pipeline, wait_for=needs, return_state=False)


@contextlib.contextmanager
def _gpu_slot(stage: Stage, force: bool) -> Iterator[None]:
    """Hold the stage's slots of the limit ``gpu``, if it has any and will run at all."""
    if not stage.meta.gpu or not (force or running.will_run(stage)):
        yield
        return
    with concurrency(
        limits.GPU,
        occupy=stage.meta.gpu,
        strict=True,  # a limit that nobody made would be no limit
        lease_duration=60,  # so long a dead run keeps its slot
        raise_on_lease_renewal_failure=False,  # a server's hiccup should not end a training
    ):
        yield


@contextlib.contextmanager
def _repository_alone() -> Iterator[None]:
    """Keep two flow runs of one repository apart; the lock dies with the process."""
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            get_run_logger().info("another flow run works in this repository; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reconcile_registry() -> None:
    """Make the registry follow dvc.lock, also where every stage was cached and said nothing."""
    words = [sys.executable, "-m", "tasks", "registry"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    log = get_run_logger()
    for line in (said.stdout + said.stderr).splitlines():
        log.info(line)
    if said.returncode:
        log.warning("the registry was not brought up to date; `python -m tasks registry` does")


def _summary(order: list[Stage], runs: dict[str, PrefectFuture[Any]]) -> State[Any]:
    """Show what became of each stage; the flow's state is ours, not the last task's."""
    rows = [_row(stage, runs[stage.name].state) for stage in order]
    create_table_artifact(table=rows, key="stages", description="What became of each stage")
    create_markdown_artifact(markdown=_where_to_look(), key="where-to-look")
    missed = [row["stage"] for row in rows if row["outcome"] not in _WEIGHT]
    if missed:
        return Failed(message=f"not up to date: {', '.join(missed)}")
    name = max((row["outcome"] for row in rows), key=_WEIGHT.index, default="UpToDate")
    return Completed(name=name, message=f"{len(rows)} stages are up to date")


_WEIGHT = ["UpToDate", "RunCached", "Ran"]  # a flow run is called after its heaviest stage


def _row(stage: Stage, state: State[Any]) -> dict[str, Any]:
    done = state.is_completed()
    return {
        "stage": stage.name,
        "outcome": state.name if done or state.is_final() else "not reached",
        "seconds": state.result(raise_on_failure=False) if done else None,
        "about": stage.about,
    }


def _where_to_look() -> str:
    report = (paths.EVALUATE / "report.html").resolve()
    return (
        f"* report: `{report}`\n"
        f"* runs and models: `{tracking.ui_command()}`\n"
        "* numbers: `dvc metrics show`\n"
    )
