"""MaPO on pairs of pictures: a margin without a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.config.fields import Positive
from atelier.objectives.objective import Errors, Pairwise
from atelier.training.denoising_error import logistic

if TYPE_CHECKING:
    from torch import Tensor


TIMES = 1000  # T, the training times of SDXL's schedule, by which the margin is multiplied


class MaPO(Pairwise):
    """MaPO: a margin without a reference, added to the winner's denoising loss."""

    objective: Literal["mapo"]
    """MaPO on pairs of pictures, without a reference."""
    beta: Positive
    """Weight of the margin's term against the winner's error; 0.1 in the source. [number]"""
    scale: Positive
    """Scale of the errors inside x / expm1(x); 0.5 in the source. [number]"""

    def title(self) -> str:
        """Return its name and strength."""
        return f"MaPO on pairs of paintings, β {self.beta:g}, scale {self.scale:g}"

    def needs_reference(self) -> bool:
        """Return False: its margin is the policy's own."""
        return False

    def loss(self, policy: Errors, reference: Errors) -> Tensor:
        """Return ``mapo`` of each pair, ``[B]``."""
        del reference
        return mapo(*policy, beta=self.beta, scale=self.scale)


def mapo(policy_win: Tensor, policy_lose: Tensor, *, beta: float, scale: float) -> Tensor:
    """MaPO: the winner's denoising loss and a margin that needs no reference.

    ``e_w - beta * log sigmoid(T (phi(scale e_w) - phi(scale e_l)))`` with
    ``phi(x) = x / (exp(x) - 1)``, which falls from 1 to 0, and ``T`` = 1000 (exact, as in the
    published code). Flow models have no T of their own and take the same (ours). exp overflows
    where an error is large, so phi is computed by expm1 of -x.

    Args:
        policy_win: ``e_w``, ``[B]``, ≥ 0.
        policy_lose: ``e_l``, ``[B]``, ≥ 0.
        beta: Weight of the margin, > 0.
        scale: Of the errors inside phi, > 0.

    Returns:
        Loss of each pair, ``[B]``; a sum of squared latent units and nats.

    References:
        Hong et al., Margin-aware Preference Optimization for Aligning Diffusion Models
        without Reference, arXiv:2406.06424.
    """
    margin = _falling(scale * policy_win) - _falling(scale * policy_lose)
    return policy_win + beta * logistic(TIMES * margin)


def _falling(x: Tensor) -> Tensor:
    """``x / (exp(x) - 1)`` for x ≥ 0, with its gradient, from 0 to beyond overflow."""
    small = x < 1e-3
    away = x.masked_fill(small, 1)
    series = 1 - x / 2 + x.square() / 12  # of the next term, x^4 / 720, nothing is left
    return series.where(small, away * (-away).exp() / -(-away).expm1())
