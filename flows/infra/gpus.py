"""GPU leases: which free GPUs of this machine a stage gets.

A stage holds two things. The lease of a device is a locked file of this machine: if its process
is killed in any way, the kernel releases it at once, and all clones and servers of the machine
see it. Prefect's limit ``gpu-<host>`` counts the same slots, so that people can see them and
lower them in its pages; a limit that was never created does not apply.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from atelier.errors import ParamsError
from flows.dvc.stages import Meta, Stage
from tasks.run import launch

VISIBLE = "CUDA_VISIBLE_DEVICES"
_GIB = 2**30
_SECONDS_BETWEEN_TRIES = 1.0
_SECONDS_BETWEEN_WORDS = 300.0


@dataclass(frozen=True)
class Device:
    """A GPU, or the CPU in place of a GPU if there is none.

    Attributes:
        index: As CUDA_VISIBLE_DEVICES counts; None for the CPU.
        name: What the maker calls it.
        memory: GiB that it has.
        free: GiB of them that are free now.
    """

    index: str | None
    name: str
    memory: float
    free: float


def devices() -> list[Device]:
    """Return the GPUs that we may use; the CPU where there is none."""
    found = _listed()
    allowed = os.environ.get(VISIBLE)
    if allowed is not None:
        found = [one for one in found if one.index in allowed.split(",")]
    return found or [_cpu()]


def ensure_limit() -> str:
    """Create this machine's limit, a slot a device; one that is there is an operator's."""
    name = f"gpu-{socket.gethostname()}"
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(
                    name=name, limit=len(devices()), slot_decay_per_second=0.0
                )
            )
    return name


def limit() -> str | None:
    """Return the limit that a flow run needs in addition to leases; None without a server.

    The server that a run starts for itself does not release the slot of a killed run, and the
    next run would wait for it forever.
    """
    return ensure_limit() if PREFECT_API_URL.value() else None


@contextlib.contextmanager
def slot(
    stage: Stage, limit: str | None, tell: Callable[[str], None]
) -> Iterator[dict[str, str]]:
    """Hold what the stage's ``meta`` asks for; yields the variables that point it there.

    A stage that trains starts a process on each GPU that it holds, whatever ours says.

    Args:
        stage: What will run.
        limit: Prefect's limit of this machine; None where no server is asked.
        tell: Called with a line while there is nothing free.

    Raises:
        ParamsError: This machine will never have what is asked for.
    """
    if not stage.meta.gpu:
        _await_memory(stage, tell)
        yield {}
        return
    _refuse_the_impossible(stage)
    with contextlib.ExitStack() as held:
        if limit is not None:
            held.enter_context(
                concurrency(
                    limit,
                    occupy=_count(stage.meta, devices()),
                    strict=True,  # a missing limit must be an error
                    lease_duration=60,  # seconds after which a dead run loses its slot
                    raise_on_lease_renewal_failure=False,  # a hiccup should end no training
                )
            )
        taken = held.enter_context(_leased(stage, tell))
        gpus = [one.index for one in taken if one.index is not None]
        yield {VISIBLE: ",".join(gpus), launch.PROCESSES: str(len(gpus))} if gpus else {}


@contextlib.contextmanager
def _leased(stage: Stage, tell: Callable[[str], None]) -> Iterator[list[Device]]:
    spoken = -_SECONDS_BETWEEN_WORDS
    while True:
        with contextlib.ExitStack() as held:
            taken = _take(stage.meta, held)
            if taken:
                yield taken
                return
        # All or nothing: two stages that each hold one of two devices would wait forever.
        if time.monotonic() - spoken >= _SECONDS_BETWEEN_WORDS:
            spoken = time.monotonic()
            tell(f"{stage.name} waits for {_wish(stage.meta)}")
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _take(meta: Meta, held: contextlib.ExitStack) -> list[Device]:
    taken: list[Device] = []
    there = devices()
    wanted = _count(meta, there)
    for one in there:
        if len(taken) < wanted and one.free >= meta.memory and _lock(one, held):
            taken.append(one)
    return taken if len(taken) == wanted else []


def _count(meta: Meta, there: list[Device]) -> int:
    """Return how many devices are leased: the one CPU replaces any number of GPUs."""
    return 1 if there[0].index is None else meta.gpu


def _lock(device: Device, held: contextlib.ExitStack) -> bool:
    file = _folder() / f"{device.index or 'cpu'}.lock"
    lock = held.enter_context(file.open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"atelier-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _refuse_the_impossible(stage: Stage) -> None:
    there = devices()
    fit = [one for one in there if one.memory >= stage.meta.memory]
    if there[0].index is None:
        return  # the CPU plays any part, slowly
    if len(fit) < stage.meta.gpu:
        have = ", ".join(f"{one.name} with {one.memory:.0f} GiB" for one in there)
        raise ParamsError(
            f"dvc.yaml, stage {stage.name}, meta asks for {_wish(stage.meta)}; this machine "
            f"has {have}. Lower meta.gpu or meta.memory, or run it on a larger machine"
        )


def _await_memory(stage: Stage, tell: Callable[[str], None]) -> None:
    if _cpu().free < stage.meta.memory:
        tell(f"{stage.name} waits for {stage.meta.memory} GiB of free memory")
    while _cpu().free < stage.meta.memory:
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _wish(meta: Meta) -> str:
    return f"{meta.gpu} GPU(s) with {meta.memory} GiB free"


def _listed() -> list[Device]:
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "--query-gpu=index,name,memory.total,memory.free"]
    said = subprocess.run(
        [*words, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False
    )
    rows = [line.split(", ") for line in said.stdout.splitlines() if line.count(", ") == 3]
    return [Device(index, name, _gib(total), _gib(free)) for index, name, total, free in rows]


def _gib(mebibytes: str) -> float:
    """Return GiB; where a GPU shares the machine's memory, nvidia-smi knows none of its own."""
    return float(mebibytes) / 1024 if mebibytes.strip().isdigit() else _cpu().free


def _cpu() -> Device:
    memory = psutil.virtual_memory()
    return Device(None, "the CPU", memory.total / _GIB, memory.available / _GIB)
