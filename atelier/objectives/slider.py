"""Concept sliders: a LoRA that moves one facet to either side by its share, a dial.

Gandikota et al., Concept Sliders: LoRA Adaptors for Precise Control in Diffusion Models,
arXiv:2311.12092. Notation as in ``cpo``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.config.fields import Positive
from atelier.objectives.objective import ChosenTeacher
from atelier.objectives.predictions import Predictions
from atelier.training.denoising_error import denoising_error

if TYPE_CHECKING:
    from torch import Tensor


class Slider(ChosenTeacher):
    """A dial: what the teacher tells apart is added to the reference, and nothing else."""

    objective: Literal["slider"]
    """A concept slider: the LoRA of a dial."""
    eta: Positive
    """How many times the difference between the teacher's two poles a full turn of the dial
    adds. [number]"""

    def title(self) -> str:
        """Return its name and strength."""
        return f"Concept slider, η {self.eta:g}"

    def is_logistic(self) -> bool:
        """Return that the loss is a square."""
        return False

    def loss(self, at: Predictions) -> Tensor:
        """Return ``slider`` of each image, ``[B]``."""
        return slider(
            at.policy,
            at.reference,
            at.win,
            at.lose,
            eta=self.eta,
            weights=at.weights,
            has_loser=at.has_loser,
        )

    def aim(self, at: Predictions) -> Tensor:
        """Return the target."""
        return target(at.reference, at.win, at.lose, eta=self.eta, has_loser=at.has_loser)


def target(
    reference: Tensor, win: Tensor, lose: Tensor, *, eta: float, has_loser: Tensor
) -> Tensor:
    """Return ``e0 + eta (z^w - z^l)``, and ``e0`` of images without both poles.

    The target has nothing of the teacher but the difference of two of its predictions, so that
    what SFT changed beside the attributes is no part of a dial, and dials add up. (The sum:
    stated, with the base as its own teacher; θ1 as the teacher, for the base knows no
    attributes here: ours.)

    Args:
        reference: ``e0``, ``[B, ...]``.
        win: ``z^w``, ``[B, ...]``.
        lose: ``z^l``, ``[B, ...]``.
        eta: Strength, > 0.
        has_loser: Whether the contrast names both poles, bool ``[B]``.
    """
    both = has_loser.reshape(-1, *[1] * (win.dim() - 1))
    return reference + (eta * (win - lose)).where(both, 0)


def slider(
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    *,
    eta: float,
    weights: Tensor,
    has_loser: Tensor,
) -> Tensor:
    """``w * mse(e, e0 + eta (z^w - z^l))``: the policy learns one difference.

    Args:
        policy: ``e``, ``[B, ...]``; the only argument with a gradient.
        reference: ``e0``, ``[B, ...]``.
        win: ``z^w``, ``[B, ...]``.
        lose: ``z^l``, ``[B, ...]``.
        eta: Strength, > 0.
        weights: omega(lambda_t) of each image, ``[B]``.
        has_loser: Whether the contrast names both poles, bool ``[B]``; elsewhere the policy
            is held where its reference is.

    Returns:
        Loss of each image, ``[B]``, in squared latent units.
    """
    aim = target(reference, win, lose, eta=eta, has_loser=has_loser).detach()
    return weights * denoising_error(policy, aim)
