"""A stage on another machine: code by git, inputs and outputs by DVC's remote.

The coordinator sends commit, stage and changed settings. The worker, in its own clone, fetches
the commit, restores the earlier stages from the run cache, runs the stage, and pushes its outs
with its entry of the run cache. The coordinator finds that entry as if it had run the stage
itself, so no dvc.lock is copied and no disk is shared. Results of a worker that died later are
found in the same way.
"""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelling, Completed

from atelier.errors import ArtifactError, ParamsError
from flows.dvc import completion, plan, runner, stages, supervise
from flows.dvc import overrides as changes
from flows.dvc.overrides import AS_WRITTEN, Changes
from flows.dvc.stages import Stage
from flows.infra import gpus
from tasks.run import git
from tasks.tracking import mlflow_runs

FLOW = "on-worker"
_LIVES = 3  # so many workers may die under a stage
_SECONDS_BETWEEN_LOOKS = 2.0
_SENDER = Path(".dvc/tmp/atelier/sender")  # the pipeline run that last sent stages from here
_REMOTE_SECONDS = 7200.0  # for a push or pull: DVC's own limits are for each read
_away: set[UUID] = set()
_away_lock = threading.Lock()


def commit_to_send() -> str:
    """Return the commit that workers shall run.

    Raises:
        ParamsError: Workers would not see what lies here.
    """
    changed = git.run(*git.CHANGES)
    if changed:
        raise ParamsError(
            "workers get only what is committed and pushed; uncommitted "
            f"here:\n{changed}\nCommit and push it, or run it on this machine (where: here)"
        )
    pinned = git.run("ls-files", "--others", "--exclude-standard", "--", "*.dvc")
    if pinned:
        raise ParamsError(
            f"workers get only what is committed and pushed; {', '.join(pinned.split())} pins "
            "an input and is not in git yet. Run `git add` on it, commit and push"
        )
    commit = git.run("rev-parse", "HEAD")
    if not git.run("branch", "--remotes", "--contains", commit):
        raise ParamsError(
            f"commit {commit[:9]} is not on a git remote, from which workers fetch it; run "
            "`git push`"
        )
    return commit


def share(pipeline: str) -> None:
    """Push what was made here, so that workers find it; note who will send them stages.

    Raises:
        ArtifactError: DVC has no remote, or it does not answer.
    """
    _SENDER.parent.mkdir(parents=True, exist_ok=True)
    _SENDER.write_text(pipeline, encoding="utf-8")
    _dvc("push", "--quiet", "--run-cache")


def send(
    stage: Stage,
    *,
    commit: str,
    force: bool,
    wanted: Changes,
    pipeline: str,
    tell: Callable[[str], None],
) -> None:
    """Let a worker of the pool that the stage's ``meta`` names run it; come back when it has.

    Raises:
        StageFailedError: It failed there, was stopped, or three workers died under it.
    """
    pool = "gpu" if stage.meta.gpu else "cpu"
    asked = {
        "stage": stage.name,
        "commit": commit,
        "force": force,
        # Prefect's server refuses an empty field: in its form a field has a value or is away.
        "changes": {k: v for k, v in wanted.model_dump().items() if v is not None},
        "pipeline": pipeline,
    }
    for life in range(_LIVES):
        tell(f"{stage.name} waits for a worker of the pool {pool}")
        sent = run_deployment(
            f"{FLOW}/{pool}", parameters=asked, timeout=0, flow_run_name=stage.name
        )
        assert isinstance(sent, FlowRun)  # a coroutine only inside an event loop
        state = _end_of(sent.id)
        if state.type is not StateType.CRASHED:
            break
        tell(f"{stage.name}: worker {life + 1} of {_LIVES} is gone; another takes it up")
    if state.type is not StateType.COMPLETED:
        code = supervise.STOPPED if state.type is StateType.CANCELLED else 1
        words = [
            f"a worker of the pool {pool}: {state.name}",
            *(state.message or "").split("\n"),
        ]
        raise runner.StageFailedError(stage.name, code, words)


def cancel_all() -> None:
    """Ask the workers to end what this process sent them."""
    with _away_lock:
        ids = list(_away)
    with get_client(sync_client=True) as client:
        for sent in ids:
            client.set_flow_run_state(sent, Cancelling())


def _end_of(sent: UUID) -> State[Any]:
    with _away_lock:
        _away.add(sent)
    try:
        with get_client(sync_client=True) as client:
            while True:
                state = client.read_flow_run(sent).state
                if state is not None and state.is_final():
                    return state
                time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        with _away_lock:
            _away.discard(sent)


@flow(name=FLOW, flow_run_name="{stage}", persist_result=False)
def on_worker(
    stage: str,
    commit: str,
    force: bool = False,
    changes: Changes = AS_WRITTEN,
    pipeline: str = "",
) -> State[Any]:
    """Run one stage of a commit in this clone, and push what it makes.

    Args:
        stage: Its name in dvc.yaml.
        commit: What to check out.
        force: Run it even if the run cache has it.
        changes: Settings for this run alone.
        pipeline: Names the run in MLflow.
    """
    log = get_run_logger()
    _refuse_the_sender(pipeline)
    limit = gpus.ensure_limit()
    name = pipeline or f"prefect/{runtime.flow_run.id}"
    try:
        with _checked_out(commit, changes):
            outcome = _bring_up(stage, force, {mlflow_runs.PIPELINE: name}, limit, log.info)
            _dvc("push", "--quiet", "--run-cache", stage)
    except BaseException:
        runner.stop_all()
        raise
    return Completed(name=outcome, message=f"DVC: {outcome}")


def _refuse_the_sender(pipeline: str) -> None:
    """Refuse to wait for a run that holds this clone, and waits for us."""
    if _SENDER.is_file() and _SENDER.read_text(encoding="utf-8") == pipeline:
        raise ParamsError(
            f"{Path.cwd()} sent this stage and received it: its worker belongs to the pool "
            "here; workers of cpu and gpu need their own clone (docs/operations.md, 6)"
        )


@contextlib.contextmanager
def _checked_out(commit: str, wanted: Changes) -> Iterator[None]:
    with runner.repository_alone(get_run_logger().info):
        changed = git.run(*git.CHANGES)
        if changed:
            raise ParamsError(
                f"a worker needs its own clone; this one has uncommitted changes:\n{changed}"
            )
        git.run("fetch", "--quiet", "--all")
        git.run("checkout", "--quiet", "--force", "--detach", commit)
        with changes.in_force(wanted):
            yield


def _bring_up(
    name: str,
    force: bool,
    more: dict[str, str],
    limit: str,
    tell: Callable[[str], None],
) -> runner.Outcome:
    """Restore what the stage needs, and run it unless that is in the run cache, too."""
    order = stages.read([name])
    inputs = sorted({pin for stage in order for pin in stage.pins})
    if inputs:
        _dvc("pull", "--quiet", *inputs)
    prospects = plan.look(order, pull=True)
    for stage in order[:-1]:
        _restore(stage, prospects[stage.name], tell)
    last = order[-1]
    prospect = plan.look([last], pull=True)[name]
    if prospect.verdict == "up to date" and not force:
        return "UpToDate"
    if prospect.verdict == "restore" and not force:
        return runner.run(last, force=False, more=more, tell=tell)
    if not force and prospect.made_of and completion.commit(last, prospect.made_of):
        return "Committed"
    more = more | completion.expect(last, prospect.made_of or "")
    with gpus.slot(last, limit, tell) as devices:
        outcome = runner.run(last, force=force, more=more | devices, tell=tell)
    completion.forget(last)
    return outcome


def _restore(stage: Stage, prospect: plan.Prospect, tell: Callable[[str], None]) -> None:
    if prospect.verdict == "up to date":
        return
    if prospect.verdict != "restore" and stage.name != stages.CODE:
        raise ArtifactError(
            f"{stage.name} is not in the run cache of DVC's remote ({prospect.reasons[0]}); "
            "run it first, as `atelier run` does"
        )
    runner.run(stage, force=False, more={}, tell=tell)


def _dvc(*words: str) -> None:
    """Run DVC against its remote.

    Raises:
        ArtifactError: It failed, or took so long that the remote must be hanging.
    """
    try:
        said = subprocess.run(
            runner.dvc(*words),
            env=runner.environment({}),
            capture_output=True,
            text=True,
            check=False,
            timeout=_REMOTE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(
            f"dvc {' '.join(words)}: DVC's remote did not finish within {_REMOTE_SECONDS:g} s; "
            "what arrived is kept, and the same command goes on"
        ) from None
    if said.returncode:
        lines = [line for line in said.stderr.splitlines() if line.strip()]
        raise ArtifactError(
            f"dvc {' '.join(words)}: {' '.join(lines)[-800:]}\n"
            "Once DVC's remote answers (`dvc remote list`), the same command goes on"
        )
