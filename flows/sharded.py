"""``annotate`` with its pictures judged by Dask's workers, on this machine or on several.

No second DAG and no second cache: workers fill the journal from which the stage goes on
(``tasks.shards``), then the stage runs as ever, through DVC, and finds nothing left to judge.
"""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import as_completed
from prefect.states import Completed, Failed
from prefect.tasks import Task
from pydantic import Field

from atelier.errors import AtelierError, ParamsError
from flows import changes, pipeline, plan, running, stages
from tasks import shards
from tasks.shards import Shard

if TYPE_CHECKING:
    from prefect_dask import DaskTaskRunner

Count = Annotated[int, Field(ge=1)]


def runner(workers: int, scheduler: str | None) -> "DaskTaskRunner":
    """Return what hands Prefect's tasks to Dask.

    Args:
        workers: Processes to start on this machine.
        scheduler: Address of a Dask scheduler that has workers; then none is started here.

    Raises:
        ParamsError: The extra ``scale`` is not installed, or the scheduler cannot be used.
    """
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise ParamsError(
            "sharding needs Dask, which is not installed here; run "
            "`pip install -c constraints.txt '.[scale]'`"
        ) from None
    if scheduler is None:
        here = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        return DaskTaskRunner(cluster_kwargs=here | {"host": "127.0.0.1"})
    _refuse_silent(scheduler)
    return DaskTaskRunner(address=scheduler)


def _refuse_silent(scheduler: str) -> None:
    import distributed

    try:
        with distributed.Client(scheduler, timeout=10, set_as_default=False) as client:
            found = len(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({error}); start one "
            "with `dask scheduler --host 127.0.0.1`, and give the address that it prints"
        ) from None
    if not found:
        raise ParamsError(
            f"--scheduler {scheduler}: it has no worker; start some with `dask worker "
            f"{scheduler} --nthreads 1`, each in the root of a clone"
        )


@flow(persist_result=False)
def annotate_sharded(count: Count, workers: Count, scheduler: str | None = None) -> State[Any]:
    """Let workers judge the pictures that are new, then run the stage annotate.

    Args:
        count: Shards; some times the number of workers, so that none is idle at the end.
        workers: Processes to start on this machine.
        scheduler: Address of a Dask scheduler that has workers; then none is started here.
    """
    (stage,) = (one for one in stages.read(["annotate"]) if one.name == "annotate")
    with running.repository_alone(get_run_logger().info):
        changes.put_back()
        if plan.look([stage])[stage.name].verdict == "run":
            try:
                spread = judge_shards.with_options(task_runner=runner(workers, scheduler))
            except ParamsError as error:
                return Failed(message=str(error))
            judged = spread(count, return_state=True)
            if not judged.is_completed():
                return Failed(message=judged.message)
    return pipeline.bring_up([stage], force=False, wanted=changes.AS_WRITTEN)


@flow(persist_result=False)
def judge_shards(count: Count) -> State[Any]:
    """Let the workers of this flow's runner judge what the stage's journal does not know.

    A shard is kept as soon as it is judged, so that a run that fails goes on from there. A flow
    of its own, because the stage itself must run here and not where the shards are judged.

    Args:
        count: Shards that the pictures are parted into.
    """
    shown = pipeline.Shown("annotate")
    try:
        asked = shards.plan(count)
    except AtelierError as error:
        return Failed(message=str(error))
    total = sum(len(shard.pictures) for shard in asked)
    started, done = time.monotonic(), 0
    # The results live with the workers as long as somebody holds the futures: a worker's death
    # would have shards judged again that are in the journal already.
    waiting = {one.task_run_id: one for one in [judge_shard.submit(shard) for shard in asked]}
    failed: list[Exception] = []
    while waiting:
        future = next(iter(as_completed(list(waiting.values()))))
        del waiting[future.task_run_id]
        try:
            done += shards.take_in(future.result())
        except Exception as error:
            failed.append(error)
            continue
        rest = (time.monotonic() - started) / done * (total - done)
        shown.line(f"shards: step {done}/{total} · ETA {timedelta(seconds=round(rest))}")
    if failed:
        return Failed(message=f"{len(failed)} of {len(asked)} shards: {failed[0]}")
    return Completed(message=f"{done} pictures judged in {len(asked)} shards")


def _may_help(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Say whether a retry may help: not where a person must mend a worker's clone."""
    del task, task_run
    return not isinstance(state.result(raise_on_failure=False), AtelierError)


@task(
    task_run_name="shard {shard.name}",
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=_may_help,
)
def judge_shard(shard: Shard) -> str:
    """Judge one shard where a worker is; Dask gives a dead worker's shard to another."""
    return shards.judge(shard)
