"""Launcher of multi-device training: the stage's command, once per process.

``ATELIER_PROCESSES=4 python -m tasks cpo`` (or ``dvc repro``) starts accelerate's launcher,
which starts the command again four times. The number of devices is not a setting, because the
result does not depend on it. ``ATELIER_SHARDED=1`` also shards the frozen base over them, and
is no setting for the same reason.

``ATELIER_NODES=2`` inside a job of SLURM trains over several nodes that share the repository's
folder: ``srun`` starts the stage's command once on each, and each starts its processes. Without
SLURM, start accelerate's launcher by hand on each node (docs/performance.md); then this module
does nothing.
"""

import logging
import os
import socket
import sys
import threading
import time
from typing import NoReturn

from atelier.errors import ParamsError

PROCESSES = "ATELIER_PROCESSES"
SHARDED = "ATELIER_SHARDED"
NODES = "ATELIER_NODES"
_PORT = "ATELIER_NODES_PORT"  # of the first node, at which the processes meet
_FIRST_NODE = "ATELIER_FIRST_NODE"  # set here for the nodes that srun starts
_USUAL_PORT = "29500"
TRAINING = frozenset({"base", "cpo", "sft"})
_WATCH_SECONDS = 0.5
_OTHERS_WAIT_SECONDS = 120.0


def processes() -> int:
    """Return how many processes each machine is to train with.

    Raises:
        ParamsError: The variable holds no such number.
    """
    return _number(PROCESSES, "processes")


def nodes() -> int:
    """Return over how many nodes a training goes.

    Raises:
        ParamsError: The variable holds no such number.
    """
    return _number(NODES, "nodes")


def _number(variable: str, of: str) -> int:
    said = os.environ.get(variable, "1")
    if not said.isascii() or not said.isdigit() or int(said) < 1:
        raise ParamsError(
            f"the environment variable {variable} should be a number of {of}, 1 or more, is "
            f"{said!r}"
        )
    return int(said)


def sharded() -> bool:
    """Return whether the processes are to share the frozen base.

    Raises:
        ParamsError: The variable is neither 0 nor 1, or there is one process to share it.
    """
    said = os.environ.get(SHARDED, "0")
    if said not in {"0", "1"}:
        raise ParamsError(
            f"the environment variable {SHARDED} should be 1 (each process holds a share of "
            f"the frozen base) or 0 (all of it), is {said!r}"
        )
    if said == "1" and processes() * nodes() == 1 and "WORLD_SIZE" not in os.environ:
        raise ParamsError(
            f"{SHARDED} is 1 and {PROCESSES} is 1: one process cannot share the base; set "
            f"{PROCESSES} to the number of devices, or {SHARDED} to 0"
        )
    return said == "1"


def wanted(stage: str) -> bool:
    """Say whether ``stage`` is to be started again, as several processes."""
    if stage not in TRAINING or "WORLD_SIZE" in os.environ:
        return False
    sharded()  # a wrong word is told, and one process is not taken for several
    return processes() * nodes() > 1


def several(stage: str) -> NoReturn:
    """Run ``python -m tasks <stage>`` as several processes and end as they end.

    Raises:
        ParamsError: There are fewer devices than processes, or a variable is wrong.
    """
    if nodes() > 1 and _FIRST_NODE not in os.environ:
        _on_each_node(stage)
    import torch

    devices = torch.cuda.device_count()
    if 0 < devices < processes():
        raise ParamsError(
            f"{PROCESSES} asks for {processes()} processes, and there are {devices} CUDA "
            "devices; each process needs one of its own"
        )
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # accelerate's names for one launcher of several processes; gloo on CPUs
    how = ["--use_fsdp", "--fsdp_version", "2"] if sharded() else ["--multi_gpu"]
    words = [
        "--num_processes", str(processes() * nodes()), *_place(), *how,
        "--mixed_precision", "no", "--dynamo_backend", "no", "--module", "tasks", stage,
    ]  # fmt: skip
    logging.disable(logging.ERROR)  # the launcher's own account of what the stage has told
    try:
        launch_command(launch_command_parser().parse_args(words))
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        raise SystemExit(first.exitcode if first.exitcode > 0 else 1) from None
    raise SystemExit(0)


def _on_each_node(stage: str) -> NoReturn:
    """Become ``srun``, which starts this command again on each node of the job.

    Raises:
        ParamsError: This is no job of SLURM, or one with fewer nodes.
    """
    from tasks.tracking import mlflow_runs

    if "SLURM_JOB_ID" not in os.environ:
        raise ParamsError(
            f"{NODES} is {nodes()}, and this is no job of SLURM: submit slurm/train.sbatch "
            "(docs/slurm.md), or start accelerate's launcher on each node (docs/performance.md)"
        )
    given = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    if int(given) < nodes():
        raise ParamsError(
            f"{NODES} is {nodes()}, and this job of SLURM has {given} node(s); give sbatch "
            f"--nodes={nodes()}"
        )
    os.environ[_FIRST_NODE] = socket.gethostname()
    # On the nodes the parent is srun's, not DVC.
    os.environ.setdefault(mlflow_runs.PIPELINE, mlflow_runs.pipeline()[0])
    count = str(nodes())
    words = ["srun", "--nodes", count, "--ntasks", count, "--ntasks-per-node", "1"]
    words += ["--kill-on-bad-exit=1", sys.executable, "-m", "tasks", stage]
    os.execvp(words[0], words)  # noqa: S606 -- a signal that ends the stage reaches srun itself


def _place() -> list[str]:
    """Return the launcher's words for this node's place among the others."""
    if nodes() == 1:
        return ["--num_machines", "1", "--machine_rank", "0", "--main_process_port", "0"]
    return [
        "--num_machines", str(nodes()), "--machine_rank", os.environ["SLURM_NODEID"],
        "--main_process_ip", os.environ[_FIRST_NODE],
        "--main_process_port", os.environ.get(_PORT, _USUAL_PORT),
    ]  # fmt: skip


def end_with_launcher() -> None:
    """End this process when its launcher is gone; otherwise it would train on."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-launcher").start()


def let_the_first_speak() -> None:
    """Give the first process time to say what all of them found; then they are ended.

    An error that only one of the others met is still told, by that one.
    """
    if os.environ.get("RANK", "0") != "0":
        time.sleep(_OTHERS_WAIT_SECONDS)
