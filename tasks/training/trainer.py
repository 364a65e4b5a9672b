"""The trainer that training stages share: fit, curve, adapters, restore."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atelier import out_of_memory
from atelier.config.model import ModelParams
from atelier.config.training import Learns, Training
from atelier.errors import DivergedError, ParamsError
from atelier.models.costs import utilization
from atelier.models.costs.utilization import Utilization
from atelier.models.denoiser import Denoiser
from atelier.training import drift, loop
from atelier.training.ranks import Ranks
from tasks.run import machine, paths, progress
from tasks.tracking.mlflow_runs import StageRun
from tasks.training.curve import Curve

_GRAPHS = 64  # that torch.compile may hold of one block


def check(
    ranks: Ranks,
    model: ModelParams,
    training: Training,
    lora: Learns,
    *,
    full_teacher: bool = False,
) -> None:
    """See before anything is loaded whether the processes can share base and batch.

    Raises:
        ParamsError: They cannot.
    """
    full = full_teacher or lora == "full"  # full weights take the base's place
    ranks.parts(training.batch_images, training.images_at_once)
    if not ranks.sharded:
        return
    for hinders, field, why in (
        (model.quantise is not None, "model.quantise", "quantised weights cannot be cut"),
        (training.compile, "training.compile", "compiled blocks were not tried on shares"),
        (full, "lora: full", "only frozen weights are shared"),
        (lora != "full" and lora.dora, "lora.dora", "it begins with the base's whole weights"),
    ):
        if hinders:
            raise ParamsError(
                f"the processes are to share the frozen base, and {field} is set: {why}. "
                "Change it, or do not shard (ATELIER_SHARDED=0, or accelerate launch "
                "--multi_gpu)"
            )


def teach(
    title: str,
    painter: Denoiser,
    trained: Mapping[str, nn.Parameter],
    step: loop.Step,
    *,
    learning_rate: float,
    params: Training,
    work: Path,
    tracked: StageRun,
    ranks: Ranks,
    beside: Mapping[str, Tensor] | None = None,
    look: Callable[[int], None] | None = None,
    needed: Utilization | None = None,
) -> Curve:
    """Train, or take the rest of an interrupted way; the painter then has what was learned.

    Args:
        title: Of the bar; one word or two.
        painter: In the state that learns.
        trained: Its weights that learn, by name.
        step: The objective.
        learning_rate: At its highest.
        params: How.
        work: Where checkpoints and curve lie meanwhile.
        tracked: The stage's run.
        ranks: The processes that train together.
        beside: Tensors that the step changes in place, which checkpoints hold, too.
        look: Told the steps done, while the weights are those; on the first process, or on
            all where they share the base.
        needed: What an image's passes need, for MFU on a GPU; None: it is not logged.

    Returns:
        The whole curve, on the first process.

    Raises:
        DivergedError: The loss is not finite or exploded; or the run drifts, where
            ``drift_stop`` says that this stops it.
        RoomError: The device has too little memory.
    """
    with progress.bar(title, params.steps, "images", each=params.batch_images) as bar:
        if ranks.first:
            progress.say(_announced(title, trained, params, ranks))
        curve = Curve(work, bar, tracked)
        pace = _Pace(params.batch_images, needed, ranks.count)
        watch = _Watch(title, curve, params.drift_stop)
        opened = False

        def report(done: int, values: Mapping[str, float]) -> None:
            nonlocal opened
            if not opened:  # after the first step, which would share its processor with it
                tracked.begin(beside=True)
                opened = True
            if ranks.first:
                curve.report(done, values, pace.values(done) if values else {})
            if look is not None and (ranks.first or ranks.sharded):  # a pass waits for all
                look(done)
            watch.report(done, values)

        if ranks.sharded:
            from atelier.models import sharding

            sharding.shard(painter.network)
        with _prepared(painter.network, params), _explained(title, params):
            weights = loop.fit(
                trained,
                step,
                learning_rate=learning_rate,
                params=params,
                folder=work,
                report=report,
                ranks=ranks,
                beside=beside,
            )
    for name, parameter in trained.items():
        parameter.data.copy_(weights[name])
    return curve


def _announced(
    title: str, trained: Mapping[str, nn.Parameter], params: Training, ranks: Ranks
) -> str:
    """What is about to begin, in a line."""
    learning = sum(parameter.numel() for parameter in trained.values())
    room = machine.room(paths.ARTIFACTS)
    shares = ", each with its share of the base," if ranks.sharded else ""
    return (
        f"{title}: {learning:,} weights learn; {params.steps} steps of {params.batch_images} "
        f"images, {ranks.count} process(es){shares} on {room.device}; "
        f"{room.free_memory / 1e9:.3g} GB memory and {room.disk / 1e9:.3g} GB disk are free"
    )


@contextlib.contextmanager
def _prepared(network: Any, params: Training) -> Iterator[None]:
    """Inside, the network's passes are made as ``params`` ask."""
    if params.compile:
        # Every state (base, each adapter, with and without gradient) is a graph of its own.
        torch._dynamo.config.recompile_limit = _GRAPHS
        network.compile_repeated_blocks()
    if params.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if params.gradient_checkpointing:
            network.disable_gradient_checkpointing()


def _explained(title: str, params: Training) -> contextlib.AbstractContextManager[None]:
    """What to change when the device has too little memory for a step."""
    now = params.images_at_once or params.batch_images
    cures = [
        (
            now > 1,
            f"training.images_at_once: {max(now // 2, 1)} (now {now}; the same result, slower)",
        ),
        (not params.gradient_checkpointing, "training.gradient_checkpointing: true (slower)"),
        (params.precision == "fp32", "training.precision: bf16"),
        (
            params.optimizer in ("adamw", "adamw-fused"),
            "training.optimizer: adamw-8bit (CUDA)",
        ),
        (True, "model.quantise: int8, then nf4 (CUDA)"),
        (True, "a LoRA in place of lora: full, a smaller lora.rank or model.pixels"),
    ]
    return out_of_memory.explained(
        title,
        [cure for helps, cure in cures if helps],
        then="What was trained is kept under artifacts/resume, for the same params only",
    )


class _Watch:
    """Says once when a run drifts instead of learning, or stops it."""

    def __init__(self, title: str, curve: Curve, stops: bool) -> None:
        self._title, self._curve, self._stops = title, curve, stops
        self._alarm: drift.Alarm | None = None
        self._rang = False

    def report(self, done: int, values: Mapping[str, float]) -> None:
        """Look at the monitor's values, if these are such.

        Raises:
            DivergedError: It drifts, and that stops it.
        """
        if "aim_error" not in values:
            return
        if self._alarm is None:  # a run that goes on knows what it reported before
            self._alarm = drift.Alarm()
            for row in self._curve.rows(before=done):
                self._alarm.drifting(row)
        if not self._alarm.drifting(values) or self._rang:
            return
        self._rang = True
        said = (
            f"{self._title} drifts at step {done}: it is farther from its target than the "
            "untouched base. Lower learning_rate or omega, or raise beta"
        )
        if self._stops:
            raise DivergedError(f"{said}. drift_stop ended it; the last checkpoints are kept")
        warnings.warn(said, stacklevel=2)


class _Pace:
    """How fast a training goes and what it holds: told, never written into a result."""

    def __init__(self, batch_images: int, needed: Utilization | None, processes: int) -> None:
        self._batch, self._needed, self._processes = batch_images, needed, processes
        self._last: tuple[int, float] | None = None

    def values(self, done: int) -> dict[str, float]:
        now = time.monotonic()
        before, self._last = self._last, (done, now)
        told = {"memory_gb": machine.used() / 1e9}
        if before is not None:
            images = (done - before[0]) * self._batch
            rate = told["images_per_second"] = images / max(now - before[1], 1e-6)
            if self._needed is not None:
                told |= self._needed.values(rate, utilization.gpu(), self._processes)
        return told
