"""Sharded flows: pictures of ``annotate`` and ``generate`` divided among Dask workers.

There is no second DAG or cache: workers fill the folder from which an interrupted stage resumes
(``tasks.annotation.shards``: its journal of judged pictures; ``tasks.evaluation.batches``: its
generated pictures). Then the stage runs through DVC and finds all of them done.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from prefect import Flow, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed
from prefect.tasks import Task
from pydantic import Field

from atelier.errors import AtelierError, ParamsError
from flows import pipeline
from flows.dvc import overrides, plan, stages
from flows.dvc import runner as running
from flows.dvc.stages import Stage
from flows.infra import gpus
from tasks.annotation import shards

if TYPE_CHECKING:
    from prefect_dask import DaskTaskRunner

    from tasks.evaluation import batches

Count = Annotated[int, Field(ge=1, description="shards; some times the number of workers")]
Workers = Annotated[int, Field(ge=1, description="processes to start on this machine")]
Scheduler = Annotated[
    str | None,
    Field(description="of Dask, as tcp://127.0.0.1:8786; its workers, and none started here"),
]
Slurm = Annotated[bool, Field(description="start the workers as jobs of SLURM, none here")]
_JOBS = Path(".dvc/tmp/atelier/slurm")  # certificates of a run, which the workers' jobs read
_Shard = TypeVar("_Shard", "shards.Shard", "batches.Shard")


def runner(
    workers: int, scheduler: str | None, variables: Sequence[Mapping[str, str]] = ()
) -> "DaskTaskRunner":
    """Return what hands Prefect's tasks to Dask.

    Args:
        workers: Processes to start on this machine.
        scheduler: Address of a Dask scheduler that has workers; then none is started here.
        variables: Those of each process that differ from ours, as its own GPU; none differ
            where this is empty.

    Raises:
        ParamsError: The extra ``scale`` is not installed, or the scheduler cannot be used.
    """
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise ParamsError(
            "sharding needs Dask, which is not installed here; run "
            "`pip install -c constraints.txt -e '.[scale]'`"
        ) from None
    if scheduler is not None:
        _refuse_silent(scheduler)
        return DaskTaskRunner(address=scheduler)
    here: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": None}
    if not variables:
        alike = here | {"n_workers": workers, "threads_per_worker": 1}
        return DaskTaskRunner(cluster_kwargs=alike)
    return _each_its_own(variables)


def slurm_runner(workers: int, gpu: int) -> "DaskTaskRunner":
    """Return what hands Prefect's tasks to Dask workers, each of them a job of SLURM.

    What a job asks for (partition, account, time, memory, cores) is dask-jobqueue's own
    configuration. Scheduler and workers speak TLS with certificates made for this run, because
    a Dask scheduler executes code from anyone who can reach it.

    Args:
        workers: Jobs to submit.
        gpu: Whether each needs a GPU.

    Raises:
        ParamsError: dask-jobqueue is not installed, SLURM is absent, or no Prefect server is
            set, which the workers could reach.
    """
    try:
        import dask
        import dask_jobqueue  # it adds its keys to Dask's configuration
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise ParamsError(
            "--slurm needs dask-jobqueue, which is not installed here; run "
            "`pip install -c constraints.txt -e '.[scale]'`"
        ) from None
    if shutil.which("sbatch") is None:
        raise ParamsError("--slurm: there is no sbatch on this machine; run it on a login node")
    if not PREFECT_API_URL.value():
        raise ParamsError(
            "--slurm needs a Prefect server that the workers' nodes can reach: set "
            "PREFECT_API_URL (docs/slurm.md)"
        )
    _JOBS.mkdir(parents=True, exist_ok=True)
    extra = list(dask.config.get("jobqueue.slurm.job-extra-directives") or [])
    asked: dict[str, Any] = {
        "n_workers": workers,
        "cores": 1,  # threads of Dask; jobqueue.slurm.job-cpu says what the job gets
        "processes": 1,
        "memory": dask.config.get("jobqueue.slurm.memory") or "8GiB",
        "job_extra_directives": [*extra, "--gres=gpu:1"] if gpu else extra,
        "security": True,
        "shared_temp_directory": str(_JOBS.resolve()),
        "scheduler_options": {"dashboard": False},
    }
    return DaskTaskRunner(cluster_class=dask_jobqueue.SLURMCluster, cluster_kwargs=asked)


def _each_its_own(variables: Sequence[Mapping[str, str]]) -> "DaskTaskRunner":
    """A worker for each set of variables."""
    from distributed import Nanny, Scheduler, SpecCluster
    from prefect_dask import DaskTaskRunner

    host = {"host": "127.0.0.1"}
    started = {
        number: {"cls": Nanny, "options": host | {"nthreads": 1, "env": dict(own)}}
        for number, own in enumerate(variables)
    }
    middle = {"cls": Scheduler, "options": host | {"dashboard": False}}
    return DaskTaskRunner(
        cluster_class=SpecCluster, cluster_kwargs={"workers": started, "scheduler": middle}
    )


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
            f"--scheduler {scheduler}: it has no workers; start some with `dask worker "
            f"{scheduler} --nthreads 1`, each in the root of a clone"
        )


@flow(persist_result=False)
def annotate_sharded(
    count: Count, workers: Workers = 1, scheduler: Scheduler = None, slurm: Slurm = False
) -> State[Any]:
    """Let workers judge the pictures that are new, then run the stage annotate.

    Args:
        count: Shards; some times the number of workers, so that none is idle at the end.
        workers: Processes to start on this machine.
        scheduler: Address of a Dask scheduler that has workers; then none is started here.
        slurm: Start the workers as jobs of SLURM.
    """
    return _in_shards("annotate", judge_shards, count, workers, scheduler, slurm=slurm)


@flow(persist_result=False)
def generate_sharded(
    count: Count, workers: Workers = 1, scheduler: Scheduler = None, slurm: Slurm = False
) -> State[Any]:
    """Let workers paint the pictures that are compared, then run the stage generate.

    Args:
        count: Shards; some times the number of workers, so that none is idle at the end.
        workers: Processes to start on this machine, each with a GPU of its own if it has any.
        scheduler: Address of a Dask scheduler that has workers; then none is started here.
        slurm: Start the workers as jobs of SLURM.
    """
    return _in_shards("generate", paint_shards, count, workers, scheduler, slurm=slurm)


def _in_shards(
    name: str,
    spread: Flow[..., State[Any]],
    count: int,
    workers: int,
    scheduler: str | None,
    *,
    slurm: bool,
) -> State[Any]:
    """Fill what a stage goes on from, if it would run at all; then run it, here."""
    order = stages.alone(name)
    stage = order[-1]
    with running.repository_alone(get_run_logger().info):
        if plan.look(order)[name].verdict == "run":
            try:
                with contextlib.ExitStack() as held:
                    if slurm:
                        runs_on = slurm_runner(workers, stage.meta.gpu)
                    else:
                        own = held.enter_context(_devices(stage, workers, scheduler))
                        runs_on = runner(workers, scheduler, own)
                    state = spread.with_options(task_runner=runs_on)(count, return_state=True)
            except ParamsError as error:
                return Failed(message=str(error))
            if not state.is_completed():
                return Failed(message=state.message)
    return pipeline.bring_up(order, force=False, wanted=overrides.AS_WRITTEN)


@contextlib.contextmanager
def _devices(
    stage: Stage, workers: int, scheduler: str | None
) -> Iterator[list[dict[str, str]]]:
    """Hold a GPU for each worker that is started here; yield their variables.

    Empty where a stage needs none, this machine has none, or another starts the workers.
    """
    there = [one for one in gpus.devices() if one.index is not None]
    if scheduler is not None or not stage.meta.gpu or not there:
        yield []
        return
    if workers > len(there):
        raise ParamsError(
            f"--workers {workers}: each needs its own GPU, and there are {len(there)}; start "
            f"at most {len(there)}"
        )
    meta = stage.meta.model_copy(update={"gpu": workers})
    every = stage.model_copy(update={"meta": meta})
    with gpus.slot(every, gpus.limit(), get_run_logger().info) as held:
        yield [{gpus.VISIBLE: device} for device in held[gpus.VISIBLE].split(",")]


@flow(persist_result=False)
def judge_shards(count: Count) -> State[Any]:
    """Let the workers of this flow's runner judge what the stage's journal does not know.

    A flow of its own, because the stage itself must run here and not where the shards are
    judged.

    Args:
        count: Shards that the pictures are parted into.
    """
    try:
        asked = shards.plan(count)
    except AtelierError as error:
        return Failed(message=str(error))
    return _taken_in(
        "annotate", asked, judge_shard, shards.take_in, sum(len(one.pictures) for one in asked)
    )


@flow(persist_result=False)
def paint_shards(count: Count) -> State[Any]:
    """Let the workers of this flow's runner paint what the stage has no picture of.

    Args:
        count: Shards that the pictures are parted into.
    """
    from tasks.evaluation import batches

    try:
        asked = batches.plan(count)
    except AtelierError as error:
        return Failed(message=str(error))
    return _taken_in(
        "generate", asked, paint_shard, batches.take_in, sum(one.pictures for one in asked)
    )


def _taken_in(
    stage: str,
    asked: Sequence[_Shard],
    done_by: Task[[_Shard], Any],
    take_in: Callable[[Any], int],
    total: int,
) -> State[Any]:
    """Take in each shard as soon as it is done, so that a run that fails goes on from there."""
    shown = pipeline.Shown(stage)
    started, done = time.monotonic(), 0
    # The results live with the workers as long as somebody holds the futures: a worker's death
    # would have shards done again that were taken in already.
    submitted: list[PrefectFuture[Any]] = [done_by.submit(shard) for shard in asked]
    waiting = {one.task_run_id: one for one in submitted}
    del submitted
    failed: list[Exception] = []
    while waiting:
        future = next(iter(as_completed(list(waiting.values()))))
        del waiting[future.task_run_id]
        try:
            done += take_in(future.result())
        except Exception as error:
            failed.append(error)
            continue
        rest = (time.monotonic() - started) / done * (total - done)
        shown.line(f"shards: step {done}/{total} · ETA {timedelta(seconds=round(rest))}")
    if failed:
        return Failed(message=f"{len(failed)} of {len(asked)} shards: {failed[0]}")
    return Completed(message=f"{done} pictures done in {len(asked)} shards")


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
def judge_shard(shard: shards.Shard) -> str:
    """Judge one shard where a worker is; Dask gives a dead worker's shard to another."""
    return shards.judge(shard)


@task(
    task_run_name="shard {shard.name}",
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=_may_help,
)
def paint_shard(shard: "batches.Shard") -> list[tuple[str, int, bytes]]:
    """Paint one shard where a worker is; Dask gives a dead worker's shard to another."""
    from tasks.evaluation import batches

    return batches.paint(shard)
