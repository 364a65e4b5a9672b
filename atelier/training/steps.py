"""What one step of each objective computes: the passes through the network, then the loss.

The frozen models go first, under ``no_grad``; the policy goes last and stays in force until
its backward pass (a switch between the two would silently give zero gradients).

Everything random is drawn for the whole batch of a step; only then are the rows taken that are
asked for, so that processes and passes which share a batch see what one would have seen.

Shapes: ``N`` images in the corpus, ``B`` in a batch, ``C H W`` latents, ``V`` prompts an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from atelier.models import FRAME, Condition, Denoiser, join
from atelier.models.adapters import use
from atelier.params import CPO, CPOS, Training
from atelier.training import drift, objectives
from atelier.training.loop import WHOLE, Step, batch_rows, bucket_turn, draw_times, generator


class Rows(Protocol):
    """Tensors by row: one in memory, or a ``cache.Column`` on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Corpus:
    """Everything that training reads, encoded.

    Attributes:
        latents: Clean latents, float32 ``[N, C, H, W]``; H and W are those of a bucket.
        prompts: Conditions of all distinct prompts, ``[U, ...]``.
        rows: For each role (``labelled``, ``caption``, ``positive``, …) the prompts of each
            image as rows of ``prompts``, long ``[N, V]``.
        empty: Row of the empty prompt.
        buckets: Images of one size, rows of ``latents``; None: all are.
        frames: Original height and width and the crop's top and left, in pixels,
            ``[N, 4]``, told to families that ask for them; None: nobody is told.
    """

    latents: Rows
    prompts: Mapping[str, Rows]
    rows: Mapping[str, Tensor]
    empty: int
    buckets: Sequence[Tensor] | None = None
    frames: Tensor | None = None

    def condition(self, prompts: Tensor, images: Tensor, device: torch.device) -> Condition:
        """Return the conditions of prompt rows ``[B]`` for image rows ``[B]`` on ``device``."""
        found = {name: rows[prompts].to(device) for name, rows in self.prompts.items()}
        if self.frames is not None:
            found[FRAME] = self.frames[images].to(device)
        return found

    def batch(self, images: int, step: int, seed: int) -> Tensor:
        """Return which images a step sees, ``[images]``, all of one size."""
        if self.buckets is None:
            return batch_rows(len(self.latents), images, step, seed)
        bucket, turn = bucket_turn(tuple(len(rows) for rows in self.buckets), step)
        rows = self.buckets[bucket]
        return rows[batch_rows(len(rows), images, turn, seed)]


def denoising(
    painter: Denoiser, corpus: Corpus, params: Training, *, role: str, caption_dropout: float
) -> Step:
    """Ordinary denoising: how the base is trained, and SFT.

    ``E || target(x_0, eps, t) - f(x_t, t, c) ||^2`` with ``c`` one of the image's prompts of
    ``role``, or the empty one for a share ``caption_dropout``.
    """

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        del measure
        clean, rows, noise, time, source = _draw(painter, corpus, params, step, part)
        variants = corpus.rows[role][rows]
        images = params.batch_images
        choice = torch.randint(variants.shape[1], (images, 1), generator=source)[part]
        prompt = variants.gather(1, choice)[:, 0]
        dropped = (torch.rand(images, generator=source) < caption_dropout)[part]
        prompt = torch.where(dropped, torch.full_like(prompt, corpus.empty), prompt)
        noisy = painter.process.add_noise(clean, noise, time)
        predicted = painter.predict(noisy, time, corpus.condition(prompt, rows, clean.device))
        target = painter.process.target(clean, noise, time)
        return objectives.denoising_error(predicted, target).mean(), {}

    return step_loss


def complex_preference(
    painter: Denoiser,
    corpus: Corpus,
    objective: CPO | CPOS,
    params: Training,
    *,
    teacher: str,
    policy: str,
) -> Step:
    """CPO and CPO-S: the policy learns, from the caption alone, what θ1 tells apart.

    Args:
        painter: One base with both adapters.
        corpus: With the roles ``caption``, ``winner`` and ``loser``, one prompt an image each.
        objective: Which loss, and its strengths.
        params: Batch, times, seed.
        teacher: Name of θ1's adapter; frozen.
        policy: Name of θ's adapter; trained, and in force when the step returns.
    """
    apart = corpus.rows["winner"] != corpus.rows["loser"]
    has_loser = apart[:, 0] & (corpus.rows["loser"] != corpus.rows["caption"])[:, 0]
    if objective.winner == "labelled":
        has_loser &= (corpus.rows["winner"] != corpus.rows["caption"])[:, 0]

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        clean, rows, noise, time, _ = _draw(painter, corpus, params, step, part)
        noisy = painter.process.add_noise(clean, noise, time)
        conditions = {
            role: corpus.condition(corpus.rows[role][rows, 0], rows, clean.device)
            for role in ("caption", "winner", "loser")
        }
        both = has_loser[rows].to(clean.device)
        weights = objectives.weight(painter.process.snr(time), objective.weighting)
        win, lose = _targets(painter, noisy, time, conditions, teacher)
        reference = None
        if measure or _needs_reference(objective):
            with torch.no_grad(), use(painter.network, None):
                reference = painter.predict(noisy, time, conditions["caption"])
        predicted = painter.predict(noisy, time, conditions["caption"])
        at = predicted.detach() if reference is None else reference
        loss = _loss(objective, predicted, at, win, lose, weights, both).mean()
        if not measure or reference is None:
            return loss, {}
        aim = _aim(objective, reference, win, lose, both)
        with torch.no_grad():
            values = drift.values(predicted.detach(), reference, win, lose, aim)
        values["winner_only"] = 1 - both.float().mean().item()
        return loss, values

    return step_loss


def _draw(
    painter: Denoiser, corpus: Corpus, params: Training, step: int, part: slice = WHOLE
) -> tuple[Tensor, Tensor, Tensor, Tensor, torch.Generator]:
    """Images, their rows, noise and times of part of a step's batch, and its generator.

    The generator has drawn for the whole batch; so must whoever draws more from it.
    """
    batch = corpus.batch(params.batch_images, step, params.seed)
    rows = batch[part]
    source = generator(params.seed, step, "step")
    clean = corpus.latents[rows]
    shape = (len(batch), *clean.shape[1:])
    noise = torch.randn(shape, generator=source, dtype=torch.float32)[part].to(clean.dtype)
    time = draw_times(len(batch), params.times, source)[part].to(clean.dtype)
    device = next(painter.network.parameters()).device
    return clean.to(device), rows, noise.to(device), time.to(device), source


def _targets(
    painter: Denoiser,
    noisy: Tensor,
    time: Tensor,
    conditions: Mapping[str, Condition],
    teacher: str,
) -> tuple[Tensor, Tensor]:
    """θ1's two predictions at one noisy latent, both in one batch."""
    with torch.no_grad(), use(painter.network, teacher):
        both = painter.predict(
            torch.cat([noisy, noisy]),
            torch.cat([time, time]),
            join([conditions["winner"], conditions["loser"]]),
        )
    win, lose = both.chunk(2)
    return win, lose


def _needs_reference(objective: CPO | CPOS) -> bool:
    return isinstance(objective, CPO) or objective.loser_target == "mirror-reference"


def _loss(
    objective: CPO | CPOS,
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    weights: Tensor,
    has_loser: Tensor,
) -> Tensor:
    if isinstance(objective, CPO):
        return objectives.cpo(
            policy, reference, win, lose,
            beta=objective.beta, weights=weights, has_loser=has_loser,
        )  # fmt: skip
    return objectives.cpo_s(
        policy, reference, win, lose,
        kind=objective.loser_target, omega=objective.omega,
        weights=weights, has_loser=has_loser,
    )  # fmt: skip


def _aim(
    objective: CPO | CPOS, reference: Tensor, win: Tensor, lose: Tensor, has_loser: Tensor
) -> Tensor:
    """Where the objective leads each image: the winner, or CPO-S's fixed point."""
    if isinstance(objective, CPO):
        return win
    point = objectives.fixed_point(
        reference, win, lose, kind=objective.loser_target, omega=objective.omega
    )
    return torch.where(has_loser.reshape(-1, *[1] * (win.dim() - 1)), point, win)
