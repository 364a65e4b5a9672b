"""Training steps timed on a device, case after case, each family in a process of its own.

``benchmarks.gpu_step`` says which cases, and shows what was found.
"""

import contextlib
import gc
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from atelier.config.training import Times, Training
from atelier.models import adapters, attention
from atelier.models.costs.measured_steps import Measured, Step
from atelier.models.denoiser import Denoiser
from atelier.objectives.objective import ObjectiveParams, Setup
from atelier.training import loop
from benchmarks import shapes

NO_DEVICE = "no device"
_SHARES = {"compile: true": 4}  # of a family's time; 1 for all others
_GRACE = 10.0  # seconds until a process that goes on beyond its time is killed
_LONGEST = 160  # characters of an error in a line
_GRAPHS = 64  # that torch.compile may hold of one block
_NEGATIVES = 5  # bad poles differ from picture to picture: 0, 1, … and again 0


@dataclass(frozen=True)
class Plan:
    """How cases are measured.

    Attributes:
        objectives: By their names in the cases.
        size: Of the networks.
        minutes: For all cases together.
        steps: Timed in a case, at the most.
        warm_up: Steps before them.
        start: How a family's process starts: forked, which costs no imports, or spawned.
    """

    objectives: Mapping[str, ObjectiveParams]
    size: shapes.Size
    minutes: float
    steps: int
    warm_up: int
    start: Literal["fork", "spawn"]


def measure(
    plan: Plan, families: Sequence[Sequence[Step]], keep: Callable[[Measured], None]
) -> Measured:
    """Measure the cases of each family; each time one is done, ``keep`` all there are."""
    until = time.monotonic() + 60 * plan.minutes
    whole = Measured(
        device=NO_DEVICE, torch=torch.__version__, size=plan.size, matrix_tflops=None, steps=()
    )
    for number, cases in enumerate(families):
        now = time.monotonic()
        for step, seen in _run(plan, cases, now + (until - now) / (len(families) - number)):
            whole = whole.model_copy(update={**seen, "steps": (*whole.steps, step)})
            keep(whole)
            _say(step)
    return whole


def _run(
    plan: Plan, cases: Sequence[Step], until: float
) -> Iterator[tuple[Step, dict[str, Any]]]:
    """Measure cases in a process; where one ends it, or hangs, the rest have another.

    Where they are forked, neither CUDA nor a gradient may have been asked for here before.
    """
    context = multiprocessing.get_context(plan.start)
    left = list(cases)
    while left:
        if time.monotonic() >= until:
            yield from ((_failed(one, "no time was left"), {}) for one in left)
            return
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(plan, left, until, sender), daemon=True)
        child.start()
        sender.close()
        try:
            while left:
                if not receiver.poll(max(until - time.monotonic(), 0) + _GRACE):
                    yield _failed(left.pop(0), "stopped: it went on beyond its time"), {}
                    break
                found = receiver.recv()
                left.pop(0)
                yield found
        except EOFError:
            child.join()
            yield _failed(left.pop(0), f"its process ended (exit {child.exitcode})"), {}
        finally:
            child.kill()
            child.join()


def _child(plan: Plan, left: Sequence[Step], until: float, sender: Connection) -> None:
    """Measure the cases that are left, and send each with what it was measured on."""
    full = plan.size == "full"
    cuda = full or torch.cuda.is_available()
    if not cuda:
        torch.set_num_threads(1)
    device = "cuda" if cuda else "cpu"
    dtype = torch.bfloat16 if full else torch.float32
    seen = {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "matrix_tflops": matrix_rate(device, dtype, 8192 if full else 256) / 1e12,
    }
    bench = _Bench(plan, device, dtype)
    for number, case in enumerate(left):
        shares = [_SHARES.get(one.flag, 1) for one in left[number:]]
        now = time.monotonic()
        sender.send((bench.attempt(case, now + (until - now) * shares[0] / sum(shares)), seen))
    sender.close()


class _Bench:
    """A painter on the device, built again where a case needs another network."""

    def __init__(self, plan: Plan, device: str, dtype: torch.dtype) -> None:
        self._plan, self._device, self._dtype = plan, device, dtype
        self._painter: Denoiser | None = None
        self._built: tuple[object, ...] = ()

    def attempt(self, case: Step, until: float) -> Step:
        """Measure a case; where it fails, return why."""
        try:
            return self._measured(case, until)
        except Exception as error:  # whatever it is, the other cases are measured
            why = _first_line(error)
        self._drop()  # a pass that failed may have left anything in the network
        return _failed(case, why)

    def _measured(self, case: Step, until: float) -> Step:
        painter, training = self._painter_for(case), settings(case)
        setup = Setup(
            painter, shapes.corpus(case.family, self._plan.size, case.pixels), training,
            "theta1", "theta", 0.0, pairs=shapes.pairs(),
            negatives=torch.arange(shapes.IMAGES) % _NEGATIVES,
        )  # fmt: skip
        clock = _Clock(self._device, self._plan.warm_up, self._plan.steps, until)
        if case.gradient_checkpointing:
            painter.network.enable_gradient_checkpointing()
        with adapters.learning(painter.network, "theta"):
            clock.time(
                adapters.weights(painter.network, "theta"),
                self._plan.objectives[case.objective].step(setup),
                training,
            )
        if case.gradient_checkpointing:
            painter.network.disable_gradient_checkpointing()
        return case.model_copy(
            update={
                "steps": clock.steps,
                "seconds_per_image": clock.seconds / clock.steps / case.batch_images,
                "peak_memory_gb": memory(self._device) / 1e9,
            }
        )

    def _painter_for(self, case: Step) -> Denoiser:
        needed = (case.family, case.rank, case.quantise, case.attention, case.compile)
        if self._painter is None or self._built != needed:
            self._drop()
            self._painter, self._built = self._build(case), needed
        return self._painter

    def _build(self, case: Step) -> Denoiser:
        painter = shapes.painter(case.family, self._plan.size, self._device, self._dtype)
        network = painter.network
        if case.quantise is not None:
            shapes.to_fp8(network)
        for seed, name in enumerate(("theta1", "theta")):
            with torch.device(self._device):
                adapters.add(network, name, shapes.lora(case.rank), seed=seed)
        if case.attention is not None:
            attention.attend_by(network, case.attention)
        if case.compile:
            torch._dynamo.config.recompile_limit = _GRAPHS
            network.compile_repeated_blocks()
        return painter

    def _drop(self) -> None:
        self._painter = None
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()


class _EnoughError(Exception):
    """All steps were timed, or the time is over."""


@dataclass
class _Clock:
    """Times steps of the loop, from one moment when the device is idle to another.

    Attributes:
        device: Which.
        warm_up: Steps before the first one that is timed.
        most: Steps that are timed, at the most.
        until: When it ends; the step at hand is finished.
        steps: That were timed.
        seconds: That they took together.
    """

    device: str
    warm_up: int
    most: int
    until: float
    steps: int = 0
    seconds: float = 0.0
    _started: float = field(default=0.0, repr=False)

    def time(self, trained: Mapping[str, Any], step: loop.Step, training: Training) -> None:
        """Take steps.

        Raises:
            TimeoutError: Not one could be timed.
        """
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
            loop.fit(
                trained, step, learning_rate=5e-5, params=training, folder=Path(folder),
                report=self._report,
            )  # fmt: skip
        if not self.steps:
            took = time.monotonic() - begun
            raise TimeoutError(f"no step was timed, the warm-up took {took:.0f} s")

    def _report(self, done: int, values: Mapping[str, float]) -> None:
        del values
        late = time.monotonic() >= self.until
        if done == self.warm_up:
            _wait(self.device)
            if self.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            self._started = time.perf_counter()
        self.steps = max(done - self.warm_up, 0)
        if self.steps == self.most or late:
            _wait(self.device)
            self.seconds = time.perf_counter() - self._started
            raise _EnoughError


def settings(case: Step) -> Training:
    """Return the training block of a case: endless steps, no report, no checkpoint."""
    return Training(
        steps=10**9,
        batch_images=case.batch_images,
        images_at_once=case.images_at_once,
        warmup_steps=0,
        schedule="constant",
        optimizer=case.optimizer,
        weight_decay=0.0,
        clip_norm=1.0,
        ema_decay=None,
        precision=case.precision,
        gradient_checkpointing=case.gradient_checkpointing,
        compile=case.compile,
        times=Times(uniform_share=1.0, logit_mean=0.0, logit_std=1.0, shift=1.0),
        offset_noise=0,
        seed=0,
        checkpoint_steps=10**9,
        checkpoints_kept=1,
        report_steps=10**9,
        grids=None,
        explosion=None,
        drift_stop=False,
    )


def matrix_rate(device: str, dtype: torch.dtype, side: int) -> float:
    """Return FLOP/s of products of square matrices, the best of some."""
    one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        _wait(device)
        started = time.perf_counter()
        for _ in range(5):
            one @ two
        _wait(device)
        best = min(best, (time.perf_counter() - started) / 5)
    return 2 * side**3 / best


def memory(device: str) -> int:
    """Return the most bytes in use in the timed steps; on a CPU, what the process has."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return int(psutil.Process().memory_info().rss)


def _failed(case: Step, why: str) -> Step:
    return case.model_copy(update={"failure": why})


def _first_line(error: Exception) -> str:
    """What an error says first, short enough for a table, without the cure."""
    said = (str(error).strip().splitlines() or [""])[0].replace("|", "/").split(";")[0]
    return f"{type(error).__name__}: {said}"[:_LONGEST]


def _say(step: Step) -> None:
    what = f"{step.family}, {step.objective}" + (f", {step.flag}" if step.flag else "")
    took = step.seconds_per_image
    found = (
        f"failed, {step.failure}"
        if took is None
        else f"{took:.3g} s an image over {step.steps} steps"
    )
    sys.stderr.write(f"{what}: {found}\n")
    sys.stderr.flush()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
