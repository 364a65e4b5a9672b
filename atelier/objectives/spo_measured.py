"""SPO without a step-aware scorer: the measured annotator looks at x0-predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from atelier.config.fields import Count, Integer, Positive, Real, Whole
from atelier.objectives.objective import ObjectiveParams, Passes, Setup
from atelier.training.denoising_error import denoising_error, logistic

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.models.denoiser import Condition
    from atelier.training.loop import Step


class SPO(ObjectiveParams):
    """SPO without a step-aware scorer: the measured annotator looks at x0-predictions."""

    needs_judge: ClassVar[bool] = True

    objective: Literal["spo-measured"]
    """SPO with the measured annotator as its step-wise judge."""
    beta: Positive
    """Strength β of the clipped log ratio. [number]"""
    clip: Annotated[Real, Field(gt=0, lt=1)]
    """Half-width of the ratio's trust region. [number]"""
    steps: Annotated[Integer, Field(ge=3)]
    """Steps of the sampler, each of which is judged. [sampling steps]"""
    untrained: Whole
    """The noisiest of them, which are not trained. [sampling steps]"""
    churn: Annotated[Real, Field(gt=0, le=1)]
    """DDIM's η: how much noise a step adds. [share]"""
    gap: Count
    """Difference of negative attributes that makes two candidates a pair. [attributes]"""

    @model_validator(mode="after")
    def _trains_some_steps(self) -> SPO:
        if self.untrained > self.steps - 3:
            raise ValueError(
                f"untrained should leave steps to train, at most {self.steps - 3} of "
                f"{self.steps}, is {self.untrained}"
            )
        return self

    def title(self) -> str:
        """Return its name and strength."""
        return (
            "SPO by the measured annotator (ours, no step-aware scorer), "
            f"β {self.beta:g}, clip {self.clip:g}"
        )

    def passes(self, batch_images: int) -> Passes:
        """Return the passes of half an image: the policy, its reference, and two outcomes."""
        del batch_images
        return Passes(0.5, 1.5)

    def step(self, setup: Setup) -> Step:
        """Return the step: of two outcomes of one sampling step, the better judged one wins.

        Ours, where no step-aware scorer exists: from a noised training image the policy takes
        one stochastic step of a sampler twice, each outcome is judged by the picture that the
        policy predicts from there, and the policy learns to take the better one more often
        than its reference, inside of a trust region. SPO itself (arXiv:2406.04314) judges
        noisy latents by a model of its own, on the way of a whole sampling, with guidance
        inside.

        A step looks at half of ``batch_images`` images, twice each.
        """
        return _step(self, setup)


def _step(objective: SPO, setup: Setup) -> Step:
    import torch

    from atelier.models.adapters import use
    from atelier.models.processes import ancestral
    from atelier.training.corpus import draw_noise, pairs_of
    from atelier.training.loop import WHOLE, generator

    painter, corpus, params = setup.painter, setup.corpus, setup.params

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        count, own = params.batch_images // 2, pairs_of(part)
        rows = corpus.batch(count, step, params.seed)[own]
        source = generator(params.seed, step, "step")
        clean = corpus.latents[rows]
        noise, _ = draw_noise(clean, count, params, source, own)
        highest = objective.steps - objective.untrained
        place = torch.randint(2, highest, (count,), generator=source)[own]
        shape = (2, count, *clean.shape[1:])
        steps_noise = torch.randn(shape, generator=source, dtype=torch.float32)[:, own]
        dropped = torch.rand(count, generator=source)[own] < setup.caption_dropout
        captions = corpus.emptied(corpus.rows["caption"][rows, 0], dropped)
        device = next(painter.network.parameters()).device
        time = (place / objective.steps).to(clean.dtype).to(device)
        to = ((place - 1) / objective.steps).to(clean.dtype).to(device)
        condition = corpus.condition(captions, rows, device)
        noisy = painter.process.add_noise(clean.to(device), noise.to(device), time)
        with torch.no_grad(), use(painter.network, objective.reference_state(setup)):
            reference = painter.predict(noisy, time, condition)
        predicted = painter.predict(noisy, time, condition)
        means = [
            ancestral(painter.process, noisy, at, time, to, objective.churn)
            for at in (predicted, reference)
        ]
        (mean, deviation), (reference_mean, _) = means
        wide = deviation.reshape(-1, *[1] * (clean.dim() - 1))
        taken = mean.detach() + wide * steps_noise.to(clean.dtype).to(device)
        with torch.no_grad():
            wrong = torch.stack([_judged(setup, one, to, condition) for one in taken])
        first_wins = wrong[0] < wrong[1]
        ratios = [gaussian_log_ratio(one, mean, reference_mean, deviation) for one in taken]
        win = torch.where(first_wins, ratios[0], ratios[1])
        lose = torch.where(first_wins, ratios[1], ratios[0])
        kept = ((wrong[0] - wrong[1]).abs() >= objective.gap).to(win.dtype)
        losses = spo(win, lose, beta=objective.beta, clip=objective.clip)
        loss = (kept * losses).mean()
        if not measure:
            return loss, {}
        pairs = kept.sum().clamp(min=1)
        apart = denoising_error(predicted.detach(), reference).sqrt()
        return loss, {
            "accuracy": float((kept * (win > lose)).sum() / pairs),
            "drift": apart.mean().item(),
            "pairs": kept.mean().item(),
            "negatives": wrong.float().mean().item(),
            "gradient_factor": float((kept * -torch.expm1(-losses.detach())).sum() / pairs),
        }

    return step_loss


def _judged(setup: Setup, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
    """What is wrong with the picture that the policy sees in ``noisy``, ``[B]``."""
    painter, judge = setup.painter, setup.judge
    assert judge is not None  # the stage sees to it
    predicted = painter.predict(noisy, time, condition)
    clean = painter.process.denoised(noisy, predicted, time)
    return judge(painter.decode_latents(clean)).to(noisy.device)


def spo(ratio_win: Tensor, ratio_lose: Tensor, *, beta: float, clip: float) -> Tensor:
    """SPO: one step's better and worse outcome, by how likely the policy has become to take it.

    ``-log sigmoid(beta log clip(rho_w) - beta log clip(rho_l))`` with rho clipped to
    ``1 ± clip`` (exact); a clipped ratio has no gradient.

    Args:
        ratio_win: ``log rho_w``, policy against reference, mean over C, H, W, ``[B]``.
        ratio_lose: ``log rho_l``, ``[B]``.
        beta: Strength, > 0; 10 in the source.
        clip: Half-width of the trust region, in (0, 1); 0.1 in the source.

    Returns:
        Loss of each pair, ``[B]``, in nats.

    References:
        Liang et al., Step-aware Preference Optimization, arXiv:2406.04314.
    """
    low, high = math.log(1 - clip), math.log(1 + clip)
    return logistic(beta * (ratio_win.clamp(low, high) - ratio_lose.clamp(low, high)))


def gaussian_log_ratio(
    taken: Tensor, policy: Tensor, reference: Tensor, deviation: Tensor
) -> Tensor:
    """Return ``log p_policy(taken) - log p_reference(taken)``, mean over C, H, W, ``[B]``.

    Both steps are Gaussian with one deviation, so constants cancel:
    ``(mse(taken, reference) - mse(taken, policy)) / (2 deviation^2)``.

    Args:
        taken: Where the step ended, ``[B, ...]``.
        policy: The policy's mean, ``[B, ...]``.
        reference: The reference's mean, ``[B, ...]``.
        deviation: Standard deviation of the step, ``[B]``, > 0.
    """
    gained = denoising_error(taken, reference).detach() - denoising_error(taken, policy)
    return gained / (2 * deviation.square())
