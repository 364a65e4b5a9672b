"""Diffusion-DPO on pairs of pictures, and conversions between conventions of its beta."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.config.fields import Positive
from atelier.objectives.objective import Errors, Pairwise
from atelier.training.denoising_error import logistic

if TYPE_CHECKING:
    from torch import Tensor


class DPO(Pairwise):
    """Diffusion-DPO on pairs of pictures."""

    objective: Literal["dpo"]
    """Diffusion-DPO on pairs of pictures."""
    beta: Positive
    """Strength β of the logistic on mean errors, with the factor ½; docs/method.md converts
    other conventions. [number]"""

    def title(self) -> str:
        """Return its name and strength."""
        return f"Diffusion-DPO on pairs of paintings, β {self.beta:g}"

    def loss(self, policy: Errors, reference: Errors) -> Tensor:
        """Return ``dpo`` of each pair, ``[B]``."""
        return dpo(*policy, *reference, beta=self.beta)


def dpo(
    policy_win: Tensor,
    policy_lose: Tensor,
    reference_win: Tensor,
    reference_lose: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Diffusion-DPO: the policy gains more on the winning picture than on the losing one.

    ``-log sigmoid(-beta/2 * [(e_w - r_w) - (e_l - r_l)])`` (exact). Each argument is a
    ``denoising_error`` of one picture against its own target; noise and time are shared by the
    pair.

    Args:
        policy_win: ``e_w``, the policy's error on the winner, ``[B]``.
        policy_lose: ``e_l``, on the loser, ``[B]``.
        reference_win: ``r_w``, the frozen reference's error on the winner, ``[B]``.
        reference_lose: ``r_l``, on the loser, ``[B]``.
        beta: Pull towards the reference, > 0, on a mean error and with the ½; 5000 in the
            source's SDXL runs.

    Returns:
        Loss of each pair, ``[B]``, in nats; log 2 where policy and reference agree.

    References:
        Wallace et al., Diffusion Model Alignment Using Direct Preference Optimization,
        arXiv:2311.12908.
    """
    margin = (policy_win - reference_win.detach()) - (policy_lose - reference_lose.detach())
    return logistic(-0.5 * beta * margin)


def sum_beta(mean_beta: float, elements: int) -> float:
    """Return the beta for errors summed over C, H, W that acts as ours on mean errors."""
    return mean_beta / elements


def mean_beta(sum_beta: float, elements: int) -> float:
    """Return our beta that acts on mean errors as ``sum_beta`` does on sums over C, H, W."""
    return sum_beta * elements


def with_half(beta_without: float) -> float:
    """Return our beta for one of a code that leaves out the ½: its 2500 is our 5000."""
    return 2 * beta_without
