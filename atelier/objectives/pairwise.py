"""The step that DPO, NPO, MaPO and SDPO share: errors on two pictures of one caption.

The frozen reference goes first, under ``no_grad``; the policy goes last and stays in force
until its backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atelier.models.adapters import use, weights
from atelier.models.denoiser import sent
from atelier.training import drift
from atelier.training.corpus import draw_noise, pairs_of
from atelier.training.denoising_error import denoising_error, gradient_factor
from atelier.training.loop import WHOLE, Step, generator

if TYPE_CHECKING:
    from atelier.objectives.objective import Pairwise, Setup


def step(objective: Pairwise, setup: Setup) -> Step:
    """Return the step: the policy learns from pairs of pictures.

    Both pictures of a pair share noise, time and caption. A step sees ``batch_images`` images,
    so half as many pairs: what it costs is what a step of the other objectives costs.
    """
    painter, corpus, params, pairs = setup.painter, setup.corpus, setup.params, setup.pairs
    assert pairs is not None  # the profile is checked for it

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        count = params.batch_images // 2
        own = pairs_of(part)
        rows = pairs.batch(count, step, params.seed)[own]
        source = generator(params.seed, step, "step")
        images = torch.cat([pairs.win[rows], pairs.lose[rows]])
        clean = corpus.latents[images]
        noise, time = draw_noise(clean, count, params, source, own)
        dropped = torch.rand(count, generator=source)[own] < setup.caption_dropout
        device = next(painter.network.parameters()).device
        clean, noise, time = (
            sent(tensor, device) for tensor in (clean, noise.repeat(2, 1, 1, 1), time.repeat(2))
        )
        noisy = painter.process.add_noise(clean, noise, time)
        target = painter.process.target(clean, noise, time)
        captions = corpus.emptied(pairs.prompts[rows], dropped).repeat(2)
        condition = corpus.condition(captions, images, device)
        reference = None
        if measure or objective.needs_reference():
            with torch.no_grad(), use(painter.network, objective.reference_state(setup)):
                reference = painter.predict(noisy, time, condition)
        predicted = painter.predict(noisy, time, condition)
        at = predicted.detach() if reference is None else reference
        errors = _of_both(predicted, target)
        base = _of_both(at, target)
        counts = sent(pairs.weights[rows], device)
        losses = objective.loss(errors, base)
        trained = list(weights(painter.network, setup.policy).values())
        loss, more = objective.safeguarded(losses, errors, counts, trained)
        if not measure:
            return loss, {}
        with torch.no_grad():
            values = drift.pair_values(errors, base, towards_loser=objective.towards_loser)
            values["drift"] = denoising_error(predicted, at).sqrt().mean().item()
            if objective.needs_reference():
                values["gradient_factor"] = gradient_factor(losses)
        return loss, values | {name: value.item() for name, value in more.items()}

    return step_loss


def _of_both(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Errors on the winners and on the losers, each ``[B]``."""
    win, lose = denoising_error(predicted, target).chunk(2)
    return win, lose
