"""DiffusionNFT on judged paintings: a policy and its older self, contrasted by a reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from atelier.config.fields import NonNegative, Positive
from atelier.objectives.objective import ObjectiveParams, Passes, Reference, Setup
from atelier.training.denoising_error import denoising_error

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.models.adapters import State
    from atelier.models.processes import Process
    from atelier.training.loop import Step

_LEAST_ERROR = 1e-5  # of the clean latents, by whose error L+ and L- are divided


class Contrasting(ObjectiveParams):
    """What DiffusionNFT asks for, offline and online."""

    beta: Positive
    """How far the implicit policies reach to both sides; 1 or 0.1 in the source. [number]"""
    clip: Positive
    """Largest advantage A_max; 5 in the source. [standard deviations]"""
    anchor: NonNegative
    """Weight κ of the distance to the reference; 0.0001 in the source. [number]"""

    def sampled_without_guidance(self) -> bool:
        """Return True, as published: the learned direction takes the place of guidance."""
        return True


class NFT(Contrasting):
    """DiffusionNFT, offline: pictures are the training paintings, the old policy stays."""

    objective: Literal["nft"]
    """DiffusionNFT on the training pictures (offline)."""
    old: Reference
    """The old policy with which the new one is contrasted: the base, or θ1 (sft)."""

    def title(self) -> str:
        """Return its name and strength."""
        return (
            f"DiffusionNFT on judged paintings (ours: offline), β {self.beta:g}, clip "
            f"{self.clip:g}"
        )

    def details(self) -> list[str]:
        """Return how it departs from its usual form, in words that tables show."""
        return [*super().details(), *(["old policy: θ1"] if self.old == "sft" else [])]

    def passes(self, batch_images: int) -> Passes:
        """Return the policy's pass, the old policy's, and the reference's if it is another."""
        del batch_images
        return Passes(1, 1 + (self.old != self.reference))

    def step(self, setup: Setup) -> Step:
        """Return the step: both policies predict one noised painting, at one time.

        Ours, where the source paints with the old policy, asks a reward, and lets the old
        policy follow the new one: a painting of the training part has an advantage where its
        caption's other paintings have more negatives.
        """
        return _step(self, setup)


def _step(objective: NFT, setup: Setup) -> Step:
    import torch

    from atelier.models.adapters import use
    from atelier.models.denoiser import sent
    from atelier.training.corpus import draw
    from atelier.training.loop import WHOLE

    painter, corpus, params = setup.painter, setup.corpus, setup.params
    assert setup.negatives is not None  # the stage sees to it
    _, group = torch.unique(corpus.rows["caption"][:, 0], return_inverse=True)
    every = optimality(advantages(-setup.negatives, group), clip=objective.clip)
    states: dict[str, State] = {"sft": setup.teacher, "base": None}
    old_state, reference_state = states[objective.old], objective.reference_state(setup)

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        clean, rows, noise, time, source = draw(painter, corpus, params, step, part)
        noisy = painter.process.add_noise(clean, noise, time)
        dropped = torch.rand(params.batch_images, generator=source)[part]
        captions = corpus.emptied(
            corpus.rows["caption"][rows, 0], dropped < setup.caption_dropout
        )
        condition = corpus.condition(captions, rows, clean.device)
        with torch.no_grad():
            with use(painter.network, old_state):
                old = reference = painter.predict(noisy, time, condition)
            if reference_state != old_state:
                with use(painter.network, reference_state):
                    reference = painter.predict(noisy, time, condition)
        policy = painter.predict(noisy, time, condition)
        met = Met(clean, noise, noisy, time, sent(every[rows], policy.device))
        return met.loss(objective, painter.process, policy, old, reference, measure=measure)

    return step_loss


@dataclass(frozen=True)
class Met:
    """Pictures that policy and old policy meet in a step.

    Attributes:
        clean: ``x_0``, ``[B, ...]``.
        noise: ``[B, ...]``.
        noisy: ``x_t``, ``[B, ...]``.
        time: ``[B]``.
        good: ``r``, how likely each is a good one, ``[B]``.
    """

    clean: Tensor
    noise: Tensor
    noisy: Tensor
    time: Tensor
    good: Tensor

    def loss(
        self,
        objective: Contrasting,
        process: Process,
        policy: Tensor,
        old: Tensor,
        reference: Tensor,
        *,
        measure: bool,
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return the mean loss of three predictions ``[B, ...]``, and values to report."""
        contrast = nft(
            process.denoised(self.noisy, policy, self.time),
            process.denoised(self.noisy, old, self.time),
            self.clean,
            self.good,
            beta=objective.beta,
        )
        apart = denoising_error(policy, reference)
        loss = (objective.clip * contrast + objective.anchor * apart).mean()
        if not measure:
            return loss, {}
        now = policy.detach()
        target = process.target(self.clean, self.noise, self.time)
        aim = fixed_point(old, target, self.good, beta=objective.beta)
        error, before = denoising_error(now, target), denoising_error(old, target)
        values = {
            "win_error": error,
            "win_error_reference": before,
            "aim_error": denoising_error(now, aim),
            "aim_error_reference": denoising_error(old, aim),
            "accuracy": ((error < before) == (self.good > 0.5)).float(),
            "drift": apart.detach().sqrt(),
        }
        return loss, {name: value.mean().item() for name, value in values.items()}


def advantages(rewards: Tensor, group: Tensor) -> Tensor:
    """Return ``A``, how much better each picture is than its group, in deviations, ``[N]``.

    The reward less the mean of the group, or of all where a group has one picture (ours),
    divided by the deviation over all (exact). Zeros where all are alike.

    Args:
        rewards: Of each picture, ``[N]``.
        group: Which pictures have one caption, long ``[N]``.
    """
    rewards = rewards.double()
    counts = group.bincount()
    means = (group.bincount(rewards) / counts.clamp(min=1))[group]
    apart = rewards - means.where(counts[group] > 1, rewards.mean())
    return (apart / rewards.std(correction=0).clamp(min=1e-8)).float()


def optimality(advantages: Tensor, *, clip: float) -> Tensor:
    """Return ``r = clip(A / A_max, -1, 1) / 2 + 1/2``, how likely a picture is a good one.

    Args:
        advantages: ``A``, ``[N]``.
        clip: ``A_max``, > 0.
    """
    return (advantages / clip).clamp(-1, 1) / 2 + 0.5


def nft(
    policy: Tensor,
    old: Tensor,
    clean: Tensor,
    good: Tensor,
    *,
    beta: float,
    adaptive: bool = True,
) -> Tensor:
    """DiffusionNFT's contrast: an implicit good and an implicit bad policy, both regressed.

    ``[r L+ + (1 - r) L-] / beta`` with ``L = mean_CHW((x - x_0)^2 / w)`` of

    * ``x+ = beta x_theta + (1 - beta) x_old``
    * ``x- = (1 + beta) x_old - beta x_theta``

    and ``w = sg max(mean_CHW |x - x_0|, 1e-5)`` of each (exact, for rectified flows, whose
    ``x = x_t - t v`` are the clean latents that velocities imply; that other processes use
    their own clean latents is ours).

    Without ``w`` and in predictions this is ``beta^2 ||v_theta - aim||^2 / beta`` and a
    constant, with the ``aim`` of ``fixed_point``; with ``beta`` = 1 it is r times CPO-S's
    mirror-reference, with one target for winner and loser, the old policy as reference and
    omega = (1 - r)/r.

    Args:
        policy: ``x_theta``, clean latents that the policy implies, ``[B, ...]``.
        old: ``x_old``, that the old policy implies, ``[B, ...]``; no gradient.
        clean: ``x_0``, ``[B, ...]``.
        good: ``r``, in [0, 1], ``[B]``.
        beta: How far the two policies reach from the old one, > 0.
        adaptive: Whether ``w`` divides; without it ``w`` is 1.

    Returns:
        Loss of each image, ``[B]``.

    References:
        Zheng et al., DiffusionNFT: Online Diffusion Reinforcement with Forward Process,
        arXiv:2509.16117.
    """
    old = old.detach()
    plus = beta * policy + (1 - beta) * old
    minus = (1 + beta) * old - beta * policy

    def error(at: Tensor) -> Tensor:
        squared = denoising_error(at, clean)
        if not adaptive:
            return squared
        size = (at - clean).abs().flatten(1).mean(1).clamp(min=_LEAST_ERROR)
        return squared / size.detach()

    return (good * error(plus) + (1 - good) * error(minus)) / beta


def fixed_point(old: Tensor, target: Tensor, good: Tensor, *, beta: float) -> Tensor:
    """Return ``v_old + (2r - 1)/beta (v - v_old)``, where it leads without its weights."""
    lean = ((2 * good - 1) / beta).reshape(-1, *[1] * (old.dim() - 1))
    return old + lean * (target - old)
