"""ONE loop for every objective: a step is a function of (seed, step), so resume is exact.

The loop knows parameters, an optimizer and a clock. What a step computes is handed in; it
draws everything random from ``generator(seed, step, …)``, so that a run that was killed and
goes on from a checkpoint does what the undisturbed one would have done.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from atelier.errors import DivergedError
from atelier.params import Times, Training
from atelier.reporting import Report
from atelier.training import checkpoints

# (step, measure) → (loss with a gradient, values worth reporting; asked for where measure)
Step = Callable[[int, bool], tuple[Tensor, Mapping[str, float]]]

_BETAS = (0.9, 0.98)


def fit(
    parameters: Mapping[str, nn.Parameter],
    step_loss: Step,
    *,
    learning_rate: float,
    params: Training,
    folder: Path,
    report: Report,
) -> dict[str, Tensor]:
    """Train ``parameters`` in place, going on from the newest checkpoint in ``folder``.

    Args:
        parameters: What is trained, by name; float32.
        step_loss: The objective at one step.
        learning_rate: At its highest, after the warm-up.
        params: Steps, schedule, clipping, averaging.
        folder: Where checkpoints lie; belongs to this run alone.
        report: Told the steps done and, every ``report_steps``, the values.

    Returns:
        The trained weights by name: their moving average where ``ema_decay`` is set.

    Raises:
        DivergedError: The loss is no longer finite; the last checkpoint is kept.
        DiskError: A checkpoint cannot be written; the ones before it are kept.
    """
    state = _State(parameters, params)
    done = state.resume(folder)
    for step in range(done, params.steps):
        measure = (step + 1) % params.report_steps == 0 or step + 1 == params.steps
        loss, values = step_loss(step, measure)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss.item()} at step {step + 1}; the checkpoint before it is "
                f"kept in {folder}. Lower learning_rate (now {learning_rate:g}) or raise beta"
            )
        torch.autograd.backward(loss)
        rate = learning_rate * schedule(step, params)
        norm = state.advance(rate)
        if measure:
            values = {"loss": loss.item(), **values, "gradient_norm": norm, "rate": rate}
        report(step + 1, values if measure else {})
        if (step + 1) % params.checkpoint_steps == 0 or step + 1 == params.steps:
            checkpoints.save(folder, step + 1, state.tensors())
    return state.result()


def schedule(step: int, params: Training) -> float:
    """Return the share of the learning rate at ``step`` (from 0), in (0, 1].

    Linear warm-up, then constant, or a half cosine down to 2%.
    """
    if step < params.warmup_steps:
        return (step + 1) / params.warmup_steps
    if params.schedule == "constant":
        return 1.0
    progress = (step - params.warmup_steps) / max(params.steps - params.warmup_steps, 1)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


class _State:
    """Parameters, optimizer and moving average: all that a checkpoint holds."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], params: Training) -> None:
        self.parameters = dict(parameters)
        self.params = params
        self.steps = 0
        trained: Sequence[nn.Parameter] = list(self.parameters.values())
        for parameter in trained:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            trained, lr=0.0, betas=_BETAS, weight_decay=params.weight_decay
        )
        self.average = (
            {name: p.detach().clone() for name, p in self.parameters.items()}
            if params.ema_decay is not None
            else {}
        )

    def advance(self, rate: float) -> float:
        """Take one clipped optimizer step; return the gradient norm before clipping."""
        trained = list(self.parameters.values())
        norm = nn.utils.clip_grad_norm_(trained, self.params.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        if self.params.ema_decay is not None:
            decay = min(self.params.ema_decay, (1 + self.steps) / (10 + self.steps))
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter.detach(), 1 - decay)
        return float(norm)

    def result(self) -> dict[str, Tensor]:
        """Return the weights to keep."""
        kept = self.average or self.parameters
        return {name: tensor.detach().clone() for name, tensor in kept.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors by name."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            found[f"weight {name}"] = parameter
            for key, value in self.optimizer.state[parameter].items():
                found[f"adamw {key} {name}"] = value
        for name, tensor in self.average.items():
            found[f"average {name}"] = tensor
        return found

    def resume(self, folder: Path) -> int:
        """Take over the newest checkpoint; return the steps it had done, 0 without one."""
        saved = checkpoints.newest(folder)
        if saved is None:
            return 0
        self.steps, tensors = saved
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"weight {name}"])
            self.optimizer.state[parameter] = {
                key: tensors[f"adamw {key} {name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
            if name in self.average:
                self.average[name].copy_(tensors[f"average {name}"])
        return self.steps


def generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a generator that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed} {step} {purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


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
    """Return training times in (0, 1), ``[B]``: uniform or sigmoid(N(mean, std^2))."""
    uniform = torch.rand(batch, generator=source)
    normal = torch.randn(batch, generator=source) * times.logit_std + times.logit_mean
    from_uniform = torch.rand(batch, generator=source) < times.uniform_share
    return torch.where(from_uniform, uniform, normal.sigmoid()).clamp(1e-4, 1 - 1e-4)
