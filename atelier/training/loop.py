"""The training loop of every objective; a step is a function of (seed, step).

The loop has parameters, an optimizer and a clock. Its argument ``step`` computes the loss, and
draws everything random from ``generator(seed, step, …)``, so that a run that was killed and
resumes from a checkpoint computes the same as an uninterrupted one.

Random numbers are drawn for the whole batch of a step, ``batch_images``; each process, and each
of its passes, takes its rows. So neither the number of processes nor ``images_at_once`` changes
the result, up to the order of sums.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from atelier.config.training import Times, Training
from atelier.errors import ArtifactError, DivergedError
from atelier.reporting import Report
from atelier.training import checkpoints, optimizers
from atelier.training.randomness import generator as generator
from atelier.training.ranks import ALONE, Ranks

WHOLE = slice(None)
_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SETTLED = 20  # steps whose losses are known before one can be called too large
_FORGET = 0.1  # weight of the newest loss in their running mean


class Step(Protocol):
    """An objective at one step."""

    def __call__(
        self, step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the mean loss over rows ``part`` of the step's batch, and such values.

        Values are means over the same rows, asked for where ``measure``.
        """


def fit(
    parameters: Mapping[str, nn.Parameter],
    step_loss: Step,
    *,
    learning_rate: float,
    params: Training,
    folder: Path,
    report: Report,
    ranks: Ranks = ALONE,
    beside: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Train ``parameters`` in place, going on from the newest checkpoint in ``folder``.

    Args:
        parameters: What is trained, by name; float32.
        step_loss: The objective at one step.
        learning_rate: At its highest, after the warm-up.
        params: Steps, schedule, precision, clipping, averaging.
        folder: Where checkpoints lie; belongs to this run alone, and is shared by its
            processes.
        report: Receives the steps done and, every ``report_steps``, the values.
        ranks: The processes that train together; the first one writes the checkpoints.
        beside: Tensors that the step changes in place, by name; checkpoints hold them, too.

    Returns:
        The trained weights by name: their moving average where ``ema_decay`` is set.

    Raises:
        DivergedError: The loss is no longer finite, or exploded; the checkpoints before it
            are kept.
        DiskError: A checkpoint cannot be written; the ones before it are kept.
        ArtifactError: The processes see different checkpoints.
    """
    state = _State(parameters, params, ranks, beside or {})
    done = state.resume(folder)
    for step in range(done, params.steps):
        last = step + 1 == params.steps
        measure = (step + 1) % params.report_steps == 0 or last
        saves = (step + 1) % params.checkpoint_steps == 0 or last
        names, means = state.accumulate(step_loss, step, measure)
        rate = learning_rate * schedule(step, params)
        norm = state.advance(rate)
        state.check(learning_rate, folder, newest=measure or saves)
        values: dict[str, float] = {}
        if measure:
            values = dict(zip(names, means.tolist(), strict=True))
            values |= {"gradient_norm": norm.item(), "rate": rate}
        report(step + 1, values)
        if saves:
            state.save(folder)
    return state.result()


def schedule(step: int, params: Training) -> float:
    """Return the share of the learning rate at ``step`` (from 0), in (0, 1].

    Linear warm-up, then constant, or down to 2% along a half cosine or a line.
    """
    if step < params.warmup_steps:
        return (step + 1) / params.warmup_steps
    if params.schedule == "constant":
        return 1.0
    progress = (step - params.warmup_steps) / max(params.steps - params.warmup_steps, 1)
    if params.schedule == "linear":
        return 0.02 + 0.98 * (1 - progress)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


class _State:
    """Parameters, optimizer, scaler and moving averages: all that a checkpoint holds."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        params: Training,
        ranks: Ranks,
        beside: Mapping[str, Tensor],
    ) -> None:
        self.parameters = dict(parameters)
        self.beside = beside
        self.params = params
        self.ranks = ranks
        self.steps = 0
        self.trained = list(self.parameters.values())
        self.device = self.trained[0].device
        for parameter in self.trained:
            parameter.requires_grad_(True)
        ranks.same([parameter.data for parameter in self.trained])
        self.optimizer = optimizers.build(params.optimizer, self.trained, params.weight_decay)
        # Gradients of float16 passes vanish unless the loss is scaled up before them.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=params.precision == "fp16")
        self.average = (
            {name: p.detach().clone() for name, p in self.parameters.items()}
            if params.ema_decay is not None
            else {}
        )
        self.usual_loss = math.nan  # running mean
        self.unread: list[tuple[int, Tensor]] = []  # losses of steps, still on the device

    def accumulate(self, step_loss: Step, step: int, measure: bool) -> tuple[list[str], Tensor]:
        """Add up the gradient of the whole batch's mean loss.

        Returns:
            ``loss`` and the names of the values, and the means of these, float64, on the
            device.
        """
        images = self.params.batch_images
        names: list[str] = []
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        for part in self.ranks.parts(images, self.params.images_at_once):
            share = (part.stop - part.start) / images
            with self._pass(step, part):
                loss, values = step_loss(step, measure, part)
                torch.autograd.backward(self.scaler.scale(loss * share))
            names = list(values)
            found = loss.detach().double().reshape(1)
            if values:
                told = torch.tensor(list(values.values()), dtype=torch.float64)
                found = torch.cat([found, told.to(self.device)])
            total = total + found * share
        self.ranks.sum([p.grad for p in self.trained if p.grad is not None])
        self.ranks.sum([total])
        self.unread.append((step, total[0]))
        return ["loss", *names], total

    @contextlib.contextmanager
    def _pass(self, step: int, part: slice) -> Iterator[None]:
        """Precision of the passes, and what is random inside of layers (LoRA's dropout)."""
        devices = [self.device] if self.device.type == "cuda" else []
        precision = _PRECISIONS.get(self.params.precision)
        with (
            torch.random.fork_rng(devices=devices),
            torch.autocast(
                self.device.type,
                dtype=precision or torch.bfloat16,
                enabled=precision is not None,
                cache_enabled=False,  # adapters are switched inside
            ),
        ):
            source = generator(self.params.seed, step, f"layers {part.start}")
            _seed(source.initial_seed(), self.device)
            yield

    def check(self, learning_rate: float, folder: Path, *, newest: bool) -> None:
        """Stop a run whose loss is not finite, or many times what it was.

        To read a loss is to wait for the device. That of the newest step is read one step
        later, unless it is wanted now: meanwhile the device has work, and never idles.

        Raises:
            DivergedError: It is.
        """
        while len(self.unread) > (not newest):
            step, loss = self.unread.pop(0)
            self._check(loss.item(), step, learning_rate, folder)

    def _check(self, loss: float, step: int, learning_rate: float, folder: Path) -> None:
        most = self.params.explosion
        exploded = most is not None and step >= _SETTLED and loss > most * self.usual_loss
        if not math.isfinite(loss) or exploded:
            usual = f", {loss / self.usual_loss:.3g} times its mean" if exploded else ""
            raise DivergedError(
                f"the loss is {loss:.6g}{usual} at step {step + 1}; the checkpoint before it "
                f"is kept in {folder}. Lower learning_rate (now {learning_rate:g}) or raise "
                "beta"
            )
        if math.isnan(self.usual_loss):
            self.usual_loss = loss
        self.usual_loss += _FORGET * (loss - self.usual_loss)

    def advance(self, rate: float) -> Tensor:
        """Take one clipped optimizer step; return the gradient norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trained, self.params.clip_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        if self.params.ema_decay is not None:
            decay = min(self.params.ema_decay, (1 + self.steps) / (10 + self.steps))
            newest = [parameter.detach() for parameter in self.trained]
            torch._foreach_lerp_(list(self.average.values()), newest, 1 - decay)
        return norm

    def result(self) -> dict[str, Tensor]:
        """Return the weights to keep."""
        kept = self.average or self.parameters
        return {name: tensor.detach().clone() for name, tensor in kept.items()}

    def save(self, folder: Path) -> None:
        """Write a checkpoint; the first process does."""
        if self.ranks.first:
            checkpoints.save(
                folder, self.steps, self.tensors(), kept=self.params.checkpoints_kept
            )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors by name."""
        found: dict[str, Tensor] = {"usual loss": torch.tensor(self.usual_loss).double()}
        for name, value in self.scaler.state_dict().items():
            found[f"scaler {name}"] = torch.tensor(value).double()
        for name, parameter in self.parameters.items():
            found[f"weight {name}"] = parameter
            for key, tensor in optimizers.state(self.optimizer, parameter).items():
                found[f"optimizer {key} {name}"] = tensor
        for name, tensor in self.average.items():
            found[f"average {name}"] = tensor
        for name, tensor in self.beside.items():
            found[f"beside {name}"] = tensor
        return found

    def resume(self, folder: Path) -> int:
        """Take over the newest checkpoint; return the steps it had done, 0 without one."""
        saved = None
        for _ in self.ranks.in_turn():  # the first sets a damaged one aside
            saved = checkpoints.newest(folder)
        found = self.ranks.gather(saved[0] if saved else 0)
        if len(set(found)) > 1:
            raise ArtifactError(
                f"the processes find checkpoints of different steps, {found}, in {folder}; "
                "nodes that train together should share that folder"
            )
        if saved is None:
            return 0
        self.steps, tensors = saved
        self.usual_loss = tensors["usual loss"].item()
        self._resume_scaler(tensors)
        moments: dict[str, dict[str, Tensor]] = {name: {} for name in self.parameters}
        for key, tensor in tensors.items():
            if key.startswith("optimizer "):
                _, moment, name = key.split(" ", 2)
                moments[name][moment] = tensor
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"weight {name}"])
            optimizers.restore(self.optimizer, parameter, moments[name])
            if name in self.average:
                self.average[name].copy_(tensors[f"average {name}"])
        for name, tensor in self.beside.items():
            tensor.copy_(tensors[f"beside {name}"])
        return self.steps

    def _resume_scaler(self, tensors: Mapping[str, Tensor]) -> None:
        now = self.scaler.state_dict()
        kept = {name: type(value)(tensors[f"scaler {name}"]) for name, value in now.items()}
        if kept:
            self.scaler.load_state_dict(kept)


def _seed(seed: int, device: torch.device) -> None:
    """Seed what layers draw from; torch's own call asks all kinds of devices, in 0.6 ms."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def batch_rows(images: int, batch: int, step: int, seed: int) -> Tensor:
    """Return which images a step sees, ``[B]``: each once an epoch, in a shuffled order."""
    first = step * batch
    positions = range(first, first + batch)
    rows = [_order(images, p // images, seed)[p % images] for p in positions]
    return torch.tensor(rows)


def bucket_turn(images: tuple[int, ...], step: int) -> tuple[int, int]:
    """Return which bucket a step draws from, and how often that one was drawn from before.

    Each bucket's share of the steps is its share of the images, to within a step, so that an
    image is seen as often whatever its bucket.

    Args:
        images: How many each bucket holds.
        step: Counted from 0.
    """
    known, more = _turns(images)
    while len(known) <= step:
        known.append(next(more))
    return known[step]


@lru_cache(maxsize=4)
def _turns(images: tuple[int, ...]) -> tuple[list[tuple[int, int]], Iterator[tuple[int, int]]]:
    def endless() -> Iterator[tuple[int, int]]:
        taken = [0] * len(images)
        for step in itertools.count(1):
            owed = [step * n - sum(images) * k for n, k in zip(images, taken, strict=True)]
            bucket = owed.index(max(owed))
            yield bucket, taken[bucket]
            taken[bucket] += 1

    return [], endless()


@lru_cache(maxsize=32)
def _order(images: int, epoch: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(
        images, generator=generator(seed, epoch, "order")
    ).tolist()
    return order


def draw_times(batch: int, times: Times, source: torch.Generator) -> Tensor:
    """Return training times in (0, 1), ``[B]``: uniform or sigmoid(N(mean, std^2)), shifted.

    ``t' = s t / (1 + (s - 1) t)`` divides the signal-to-noise ratio of a rectified flow by
    ``s^2`` (Esser et al. 2024, arXiv:2403.03206, Eq. 23): larger pictures hide less under the
    same noise.
    """
    uniform = torch.rand(batch, generator=source)
    normal = torch.randn(batch, generator=source) * times.logit_std + times.logit_mean
    from_uniform = torch.rand(batch, generator=source) < times.uniform_share
    drawn = torch.where(from_uniform, uniform, normal.sigmoid())
    shifted = times.shift * drawn / (1 + (times.shift - 1) * drawn)
    return shifted.clamp(1e-4, 1 - 1e-4)
