"""Flows that run stages: one Prefect task for each stage, run through DVC.

Prefect decides when and where a stage runs, DVC decides whether. A task's state is named after
what DVC did (``Ran``, ``Committed``, ``RunCached``, ``UpToDate``). Prefect's own caching is
off, because DVC is the only cache.
"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

from prefect import get_run_logger, runtime, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed
from prefect.tasks import Task

from atelier import connections
from atelier.config.profile import read_switch
from flows.dvc import completion, overrides, plan, runner, workspace
from flows.dvc.overrides import AS_WRITTEN, Changes
from flows.dvc.plan import Prospect
from flows.dvc.stages import Stage
from flows.infra import gpus, prefect_setup, remote_stage
from flows.live import plans
from tasks.run import paths
from tasks.tracking import connection, main_repository, mlflow_runs, run_names, sync

Where = Literal["here", "workers"]
_SECONDS_WITHOUT_BARS = 30.0  # after Prefect's server did not answer
_RECONCILED = Path(".dvc/tmp/atelier/registry")  # what the registry was last reconciled with


@dataclass(frozen=True)
class Order:
    """What one flow run asks of its stages.

    Attributes:
        force: Run them even if nothing changed.
        pipeline: Names the run in MLflow.
        limit: Prefect's limit of this machine's GPUs, if a server is set.
        commit: What workers shall run; None where stages run on this machine.
        wanted: Settings that the run changes.
    """

    force: bool
    pipeline: str
    limit: str | None
    commit: str | None = None
    wanted: Changes = AS_WRITTEN


def bring_up(
    order: Sequence[Stage],
    *,
    force: bool,
    wanted: Changes,
    where: Where = "here",
    part: str = "",
) -> State[Any]:
    """Bring the stages up to date, those that do not need each other at once.

    Called inside a flow; the state it returns is the flow's.

    Args:
        order: The stages, each after its needs.
        force: Run them even if nothing changed.
        wanted: Settings that this run changes.
        where: On this machine, or on the workers of the pools ``cpu`` and ``gpu``.
        part: Tells runs of the pipeline apart that one flow run makes.
    """
    with runner.repository_alone(get_run_logger().info):
        _renew_forms()
        asked = _asked(force, wanted, where, part)
        return _bring_up(order, asked)


def _renew_forms() -> None:
    try:
        prefect_setup.renew_forms()
    except Exception as error:  # an old form is no reason to fail
        get_run_logger().warning(f"the run forms are not renewed: {connections.cause(error)}")


def _asked(force: bool, wanted: Changes, where: Where, part: str) -> Order:
    pipeline = f"prefect/{runtime.flow_run.id or uuid4()}{part}"
    order = Order(force, pipeline, gpus.limit(), None, wanted)
    if where == "here":
        return order
    commit = remote_stage.commit_to_send()
    remote_stage.share(pipeline)
    return replace(order, commit=commit)


def _bring_up(order: Sequence[Stage], asked: Order) -> State[Any]:
    with overrides.in_force(asked.wanted):
        prospects = plan.look(order, pull=asked.commit is not None)
        plans.begin(asked.pipeline, order, prospects)
        create_markdown_artifact(markdown=plans.link(asked.pipeline), key="live-page")
        runs: dict[str, PrefectFuture[Any]] = {}
        try:
            for stage in order:
                runs[stage.name] = _submit(stage, asked, prospects[stage.name], runs)
            wait(list(runs.values()))
        except BaseException:  # cancelled: Prefect unwinds us, and knows nothing of processes
            runner.stop_all()
            plans.end(asked.pipeline, "stopped")
            remote_stage.cancel_all()
            raise
        state = _summary(order, {name: run.state for name, run in runs.items()})
        plans.end(asked.pipeline, "finished" if state.is_completed() else "failed")
        reconcile_registry()
        show_where_to_look(asked.pipeline)
        if asked.wanted != AS_WRITTEN and state.is_completed():
            _keep_as_experiment(order)
    return state


def _may_help(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Say whether a retry may help: not a stage that was stopped, nor a person's mistake."""
    del task, task_run
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, runner.StageFailedError) and error.final)


@task(
    task_run_name="{stage.name}",
    persist_result=False,
    cache_policy=NO_CACHE,
    retry_delay_seconds=10,
    retry_condition_fn=_may_help,
)
def run_stage(stage: Stage, order: Order, prospect: Prospect) -> State[Any]:
    """Bring one stage up to date; its state is named after what DVC did."""
    started = time.monotonic()
    outcome = _outcome(stage, order, prospect)
    plans.outcome(order.pipeline, stage.name, outcome)
    seconds = round(time.monotonic() - started, 1)
    return Completed(name=outcome, message=f"DVC: {outcome}", data=seconds)


def _outcome(stage: Stage, order: Order, prospect: Prospect) -> runner.Outcome:
    shown = Shown(stage.name)
    more = {mlflow_runs.PIPELINE: order.pipeline, **_of_this_flow()}
    if not order.force:
        if prospect.verdict != "up to date":
            # What comes before has run by now: what was unsure is known.
            prospect = plan.look([stage], pull=order.commit is not None)[stage.name]
            plans.replan(order.pipeline, prospect)
        if prospect.verdict == "up to date":
            return "UpToDate"
        for reason in prospect.reasons:
            shown.line(f"{stage.name}: {reason}")
        if prospect.verdict == "restore":
            return runner.run(stage, force=False, more=more, tell=shown.line)
        if prospect.made_of and completion.commit(stage, prospect.made_of):
            shown.line(f"{stage.name} had finished; DVC has its result now")
            return "Committed"
    if order.commit is not None:
        return _run_there(stage, order, order.commit, shown.line)
    more |= completion.expect(stage, prospect.made_of or "")
    with gpus.slot(stage, order.limit, shown.line) as devices:
        outcome = runner.run(stage, force=order.force, more=more | devices, tell=shown.line)
    completion.forget(stage)
    return outcome


def _run_there(
    stage: Stage, order: Order, commit: str, tell: Callable[[str], None]
) -> runner.Outcome:
    """Let a worker run the stage, and restore here what it made there."""
    remote_stage.send(
        stage,
        commit=commit,
        force=order.force,
        wanted=order.wanted,
        pipeline=order.pipeline,
        tell=tell,
    )
    prospect = plan.look([stage], pull=True)[stage.name]
    if prospect.verdict == "run":
        words = [f"the worker's result is not on DVC's remote: {prospect.reasons[0]}"]
        raise runner.StageFailedError(stage.name, 1, words)
    if prospect.verdict == "restore":
        runner.run(stage, force=False, more={}, tell=tell)
    return "Ran"


class Shown:
    """A stage's lines in the log, and a progress artifact for each bar among them."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._log = get_run_logger()
        self._artifacts: dict[str, UUID] = {}
        self._patience = 0.0  # no bar is moved before, by time.monotonic

    def line(self, line: str) -> None:
        """Log a line that the stage printed, and move the bar that it tells of."""
        if line.strip():
            self._log.info(line)
        step = runner.step(line)
        if step is None or time.monotonic() < self._patience:
            return
        began = time.monotonic()
        try:
            self._move(step)
        except Exception as error:  # whatever breaks in Prefect, hours of training go on
            took = time.monotonic() - began
            if not self._patience:
                self._log.warning(
                    f"Prefect's server did not answer ({connections.cause(error)}): the stage "
                    "goes on, and its bars stand still meanwhile"
                )
            # The stage waits when too many of its lines do.
            self._patience = time.monotonic() + _SECONDS_WITHOUT_BARS + 10 * took

    def _move(self, step: runner.Step) -> None:
        about = " · ".join(filter(None, [self._stage, step.title, step.rest]))
        if step.title not in self._artifacts:
            made = create_progress_artifact(0.0, description=about)
            assert isinstance(made, UUID)  # a coroutine only inside an event loop
            self._artifacts[step.title] = made
        update_progress_artifact(self._artifacts[step.title], step.percent, description=about)


def _submit(
    stage: Stage, order: Order, prospect: Prospect, runs: Mapping[str, PrefectFuture[Any]]
) -> PrefectFuture[Any]:
    needs = [runs[need] for need in stage.needs if need in runs]
    placed = run_stage.with_options(
        retries=stage.meta.retries, tags=["gpu"] if stage.meta.gpu else ["cpu"]
    )
    return placed.submit(stage, order, prospect, wait_for=needs, return_state=False)


def reconcile_registry() -> None:
    """Make the registry follow dvc.lock, also where every stage was cached and said nothing.

    MLflow takes seconds to import, so what was reconciled is noted and not done again;
    ``atelier registry`` always does it.
    """
    now = _reconciled_with()
    known = _RECONCILED.is_file() and not sync.waiting()
    if known and _RECONCILED.read_text(encoding="utf-8") == now:
        return
    words = [sys.executable, "-m", "cli", "registry"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    log = get_run_logger()
    for line in (said.stdout + said.stderr).splitlines():
        log.info(line)
    if said.returncode:
        log.warning("the registry was not brought up to date; `atelier registry` does")
    elif "the registry is as it was" not in said.stdout:
        _RECONCILED.parent.mkdir(parents=True, exist_ok=True)
        _RECONCILED.write_text(now, encoding="utf-8")


def champion() -> str | None:
    """Return the address of the θ that the registry calls champion; None if there is none."""
    from tasks.tracking import registry

    return registry.address(registry.CHAMPION, read_switch(paths.SWITCH))


def challenger() -> str | None:
    """Return the θ of dvc.lock that must be compared with the champion, if there is one."""
    from tasks.tracking import registry

    return registry.challenger(read_switch(paths.SWITCH))


def _reconciled_with() -> str:
    digest = hashlib.sha256(connection.tracking_uri().encode())
    for file in (paths.SWITCH, paths.DVC_LOCK):
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def _keep_as_experiment(order: Sequence[Stage]) -> None:
    """Let `dvc exp show` list what this run changed and what came of it."""
    name = os.environ[main_repository.EXPERIMENT]
    log = get_run_logger()
    why = workspace.save_experiment(name, [stage.name for stage in order])
    if why is not None:
        log.warning(f"this run is not in `dvc exp show`: {why}")
        return
    log.info(
        f"this run is the experiment {name}: `dvc exp show` compares it with the others, `dvc "
        f"exp apply {name}` takes its settings and results over"
    )


def _summary(order: Sequence[Stage], states: Mapping[str, State[Any]]) -> State[Any]:
    """Show what became of each stage; the flow's state is ours, not the last task's."""
    rows = [_row(stage, states[stage.name]) for stage in order]
    create_table_artifact(table=rows, key="stages", description="What became of each stage")
    missed = [row["stage"] for row in rows if row["outcome"] not in _WEIGHT]
    if missed:
        return Failed(message=f"not up to date: {', '.join(missed)}")
    name = max((row["outcome"] for row in rows), key=_WEIGHT.index, default="UpToDate")
    return Completed(name=name, message=f"{len(rows)} stages are up to date")


# A flow run is called after its heaviest stage.
_WEIGHT = ["UpToDate", "RunCached", "Committed", "Ran"]


def _row(stage: Stage, state: State[Any]) -> dict[str, Any]:
    done = state.is_completed()
    return {
        "stage": stage.name,
        "outcome": state.name if done or state.is_final() else "not reached",
        "seconds": state.result(raise_on_failure=False) if done else None,
        "about": stage.about,
    }


def _of_this_flow() -> dict[str, str]:
    """Return variables by which a stage's MLflow run is called, and finds its flow run."""
    run = runtime.flow_run
    if not run.id:
        return {}
    page = {mlflow_runs.FLOW_PAGE: str(run.ui_url)} if PREFECT_API_URL.value() else {}
    # A sweep has many runs of the pipeline, which are called after what differs.
    name = {} if run.flow_name == "sweep" else {run_names.NAME: str(run.name)}
    return name | page


def show_where_to_look(pipeline: str) -> None:
    """Show the pages of this run, its models and its report: in the log, and as an artifact."""
    pages = pages_of(pipeline)
    # Prefect's page would show a bare address whole, with `&amp;` for `&`.
    lines = [
        f"* [{what}]({place})" if place.startswith("http") else f"* {what}: {place}"
        for what, place in pages.items()
    ]
    create_markdown_artifact(markdown="\n".join(lines) + "\n", key="where-to-look")
    for what, place in pages.items():
        get_run_logger().info(f"{what}: {place}")


def pages_of(pipeline: str) -> dict[str, str]:
    """Return where a pipeline's run, its comparison with others and its models are seen."""
    profile = read_switch(paths.SWITCH)
    try:
        if not connection.has_runs():
            return {"report": f"`{paths.PAGE.resolve()}`"}
        pages = mlflow_runs.pipeline_pages(profile, pipeline)
    except Exception as error:  # a server that is away costs the links alone
        get_run_logger().warning(f"MLflow did not answer: {connections.cause(error)}")
        pages = {}
    if not connection.tracking_uri().startswith("http"):
        pages["to open them"] = f"`{connection.ui_command()}`"
    return {"report": f"`{paths.PAGE.resolve()}`", **pages}
