"""DiffusionNFT online: the old policy paints, the measured annotator rewards, in rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from atelier.config.fields import Count, Fraction, Integer, NonNegative
from atelier.objectives.nft import Contrasting, Met, advantages, optimality
from atelier.objectives.objective import Passes, Setup

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.training.loop import Step


class NFTOnline(Contrasting):
    """DiffusionNFT: pictures of the old policy, which follows the new one after each round."""

    needs_judge: ClassVar[bool] = True

    objective: Literal["nft-online"]
    """DiffusionNFT on pictures that the old policy paints in rounds (online)."""
    captions: Count
    """Distinct captions that a round paints; 48 in the source. [captions]"""
    group: Annotated[Integer, Field(ge=2)]
    """Pictures of each caption, which are compared; 24 in the source. [pictures]"""
    sampling_steps: Count
    """Sampling steps of the old policy, without guidance; 10 in the source. [sampling steps]"""
    round_steps: Count
    """Optimizer steps on the pictures of a round. [optimizer steps]"""
    decay_growth: NonNegative
    """After round n the old policy keeps the share min(growth · n, most) of itself; 0.001 in
    the source. [share per round]"""
    decay_most: Fraction
    """Largest share that the old policy keeps; 0.5 in the source, later more. [share]"""

    def title(self) -> str:
        """Return its name and strength."""
        return (
            "DiffusionNFT online, rewarded by the measured annotator (ours), "
            f"β {self.beta:g}, clip {self.clip:g}, rounds of {self.captions} × {self.group} "
            f"pictures and {self.round_steps} steps"
        )

    def passes(self, batch_images: int) -> Passes:
        """Return the passes of three policies, and a round's painting by its images."""
        painted = self.captions * self.group * self.sampling_steps
        return Passes(1, 2 + painted / (self.round_steps * batch_images))

    def step(self, setup: Setup) -> Step:
        """Return the step: both policies predict a noised picture that the old one painted.

        What a round paints depends on the seed, the number of the round and the old policy.
        The old policy is part of the checkpoints (``setup.state``), so that a run which goes
        on in the middle of a round paints the same pictures again. All are painted at the
        size of the corpus' first image. A round costs ``captions · group`` judgements and
        ``sampling_steps`` times as many passes.
        """
        return _step(self, setup)


@dataclass(frozen=True)
class _Round:
    """Pictures of one round: latents, prompts as rows of the corpus, and what they are worth.

    Attributes:
        number: Counted from 0.
        latents: ``[N, C, H, W]``.
        prompts: Long ``[N]``.
        good: ``r``, ``[N]``.
        negatives: Mean over the pictures.
    """

    number: int
    latents: Tensor
    prompts: Tensor
    good: Tensor
    negatives: float


def _step(objective: NFTOnline, setup: Setup) -> Step:
    import torch

    from atelier.models import adapters
    from atelier.models.denoiser import sent
    from atelier.training.corpus import draw_noise
    from atelier.training.loop import WHOLE, batch_rows, generator

    painter, corpus, params = setup.painter, setup.corpus, setup.params
    policy = adapters.weights(painter.network, setup.policy)
    setup.state.update({name: weight.detach().clone() for name, weight in policy.items()})
    rounds: list[_Round] = []  # the one at hand

    def at_hand(step: int) -> _Round:
        number, begun = divmod(step, objective.round_steps)
        if not rounds or rounds[0].number != number:
            if number > 0 and begun == 0:
                keep = min(objective.decay_growth * number, objective.decay_most)
                for name, weight in policy.items():
                    setup.state[name].lerp_(weight.detach(), 1 - keep)
            rounds[:] = [_painted(objective, setup, number)]
        return rounds[0]

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        made = at_hand(step)
        rows = batch_rows(len(made.latents), params.batch_images, step, params.seed)[part]
        source = generator(params.seed, step, "step")
        clean = made.latents[rows]
        noise, time = draw_noise(clean, params.batch_images, params, source, part)
        dropped = torch.rand(params.batch_images, generator=source)[part]
        prompts = corpus.emptied(made.prompts[rows], dropped < setup.caption_dropout)
        device = next(painter.network.parameters()).device
        clean, noise, time = (sent(tensor, device) for tensor in (clean, noise, time))
        condition = {
            name: sent(column[prompts], device) for name, column in corpus.prompts.items()
        }
        noisy = painter.process.add_noise(clean, noise, time)
        with torch.no_grad(), adapters.resting(painter.network):
            with adapters.standing_in(policy, setup.state):
                old = painter.predict(noisy, time, condition)
            with adapters.use(painter.network, objective.reference_state(setup)):
                reference = painter.predict(noisy, time, condition)
        predicted = painter.predict(noisy, time, condition)
        met = Met(clean, noise, noisy, time, sent(made.good[rows], device))
        loss, values = met.loss(
            objective, painter.process, predicted, old, reference, measure=measure
        )
        if not measure:
            return loss, values
        judged = (made.number + 1) * len(made.latents)
        return loss, {**values, "negatives": made.negatives, "judged": float(judged)}

    return step_loss


def _painted(objective: NFTOnline, setup: Setup, number: int) -> _Round:
    """Let the old policy paint a round, and the judge count what is wrong with it."""
    import torch

    from atelier.objectives import rounds

    judge = setup.judge
    assert judge is not None  # the stage sees to it
    wrong: list[Tensor] = []
    latents, prompts = rounds.painted(
        setup,
        setup.state,
        number,
        objective,
        lambda pixels, rows: wrong.append(judge(pixels).cpu()),
    )
    negatives = torch.cat(wrong).float()
    group = torch.arange(len(prompts)) // objective.group
    good = optimality(advantages(-negatives, group), clip=objective.clip)
    return _Round(number, latents, prompts, good, negatives.mean().item())
