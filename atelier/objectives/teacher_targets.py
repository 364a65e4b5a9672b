"""The step that CPO, CPO-S and DDSPO share: a teacher's two targets at one noisy latent.

The frozen models go first, under ``no_grad``; the policy goes last and stays in force until
its backward pass (a switch between the two would silently give zero gradients).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atelier.models.adapters import State, use
from atelier.models.denoiser import Condition, Denoiser, join, sent
from atelier.objectives.predictions import Predictions
from atelier.training import drift, target_cache
from atelier.training.corpus import Corpus, Rows, draw
from atelier.training.denoising_error import gradient_factor, weights_at
from atelier.training.loop import WHOLE, Step

if TYPE_CHECKING:
    from atelier.objectives.objective import Setup, TeacherTargets


def step(objective: TeacherTargets, setup: Setup) -> Step:
    """Return the step: the policy learns, from captions alone, what a teacher tells apart.

    An image may have several contrasts, of which each step draws one; all that are drawn from
    have a loser, unless none of the image's has.
    """
    painter, corpus, params = setup.painter, setup.corpus, setup.params
    has_loser = _with_loser(corpus, objective)
    several = has_loser.shape[1] > 1
    states: dict[str, State] = {"sft": setup.teacher, "base": None, "self": setup.policy}
    teacher = states[objective.taught_by()]
    guidance = objective.teacher_guidance

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        clean, rows, noise, time, source = draw(painter, corpus, params, step, part)
        contrast = torch.zeros(len(rows), dtype=torch.long)
        if several:
            odds = has_loser[corpus.batch(params.batch_images, step, params.seed)].double()
            odds[odds.sum(1) == 0] = 1
            contrast = torch.multinomial(odds, 1, generator=source)[part, 0]
        noisy = painter.process.add_noise(clean, noise, time)
        prompts = {role: corpus.rows[role][rows, contrast] for role in ("winner", "loser")}
        dropped = torch.rand(params.batch_images, generator=source)[part]
        captions = corpus.rows["caption"][rows, 0]
        heard = corpus.emptied(captions, dropped < setup.caption_dropout)
        if guidance > 1:
            prompts["empty"] = torch.full_like(captions, corpus.empty)

        def targets() -> tuple[Tensor, Tensor]:
            conditions = {
                role: corpus.condition(prompt, rows, clean.device)
                for role, prompt in prompts.items()
            }
            with torch.no_grad(), use(painter.network, teacher):
                return _targets(painter, noisy, time, conditions, guidance=guidance)

        if setup.targets is None or objective.taught_by() == "self":
            win, lose = targets()
        else:
            said = {role: _named(corpus.prompts, prompt) for role, prompt in prompts.items()}
            pictures = target_cache.names(corpus.latents, rows)
            asked = [objective.taught_by(), guidance, step, part.start, pictures, said]
            win, lose = setup.targets.of(asked, targets, clean.device)
        caption = corpus.condition(heard, rows, clean.device)
        reference = None
        if measure or objective.needs_reference():
            with torch.no_grad(), use(painter.network, objective.reference_state(setup)):
                reference = painter.predict(noisy, time, caption)
        policy = painter.predict(noisy, time, caption)
        found = Predictions(
            policy,
            policy.detach() if reference is None else reference,
            win,
            lose,
            weights_at(painter.process, time, objective.weighting),
            sent(has_loser[rows, contrast], clean.device),
            _omega(corpus, rows, contrast, like=policy),
        )
        losses = objective.loss(found)
        return losses.mean(), _values(objective, found, losses) if measure else {}

    return step_loss


def _with_loser(corpus: Corpus, objective: TeacherTargets) -> Tensor:
    """Which contrasts name both poles, bool ``[N, V]``; the others train the winner alone."""
    winner, loser, caption = (corpus.rows[role] for role in ("winner", "loser", "caption"))
    has_loser = (winner != loser) & (loser != caption)
    if objective.winner == "labelled" and objective.empty_positive == "winner-only":
        has_loser &= winner != caption
    return has_loser


def _named(prompts: Mapping[str, Rows], chosen: Tensor) -> list[str]:
    """What the chosen prompts are, by the names of their conditions on disk."""
    return target_cache.names(next(iter(prompts.values())), chosen)


def _targets(
    painter: Denoiser,
    noisy: Tensor,
    time: Tensor,
    conditions: Mapping[str, Condition],
    *,
    guidance: float,
) -> tuple[Tensor, Tensor]:
    """Return the winner's and the loser's target, predicted in one batch.

    ``z = f(empty) + g (f(y and attributes) - f(empty))`` (ours); with ``g`` = 1 the empty
    prompt is not asked. The two targets are then ``g`` times as far apart, and lie where
    guidance would lead the teacher, so that θ needs none.
    """
    roles = ("winner", "loser", "empty") if guidance > 1 else ("winner", "loser")
    win, lose, *empty = painter.predict(
        torch.cat([noisy] * len(roles)),
        torch.cat([time] * len(roles)),
        join([conditions[role] for role in roles]),
    ).chunk(len(roles))
    for away in empty:
        win, lose = away + guidance * (win - away), away + guidance * (lose - away)
    return win, lose


def _omega(corpus: Corpus, rows: Tensor, contrast: Tensor, *, like: Tensor) -> Tensor | None:
    """The strength of each image's contrast, ``[B, 1, ...]``, where it differs by root."""
    if corpus.omegas is None:
        return None
    omegas = sent(corpus.omegas[rows, contrast], like.device).to(like.dtype)
    return omegas.reshape(-1, *[1] * (like.dim() - 1))


@torch.no_grad()
def _values(objective: TeacherTargets, found: Predictions, losses: Tensor) -> dict[str, float]:
    """What the drift monitor reports of a step."""
    aim = objective.aim(found)
    values = drift.values(found.policy.detach(), found.reference, found.win, found.lose, aim)
    if objective.is_logistic():
        values["gradient_factor"] = gradient_factor(losses)
    values["winner_only"] = 1 - found.has_loser.float().mean().item()
    return values
