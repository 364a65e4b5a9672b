"""Diffusion-NPO: DPO with the pair swapped, for the negative branch of guidance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from atelier.config.fields import Fraction, Positive
from atelier.objectives.dpo import dpo
from atelier.objectives.objective import Errors, NegativeBranch, Pairwise

if TYPE_CHECKING:
    from torch import Tensor


class NPO(Pairwise):
    """Diffusion-NPO: DPO with the pair swapped; paints on the negative branch of others."""

    towards_loser: ClassVar[bool] = True

    objective: Literal["npo"]
    """Diffusion-NPO: learns what is bad, for the negative branch of guidance."""
    beta: Positive
    """Strength β of the logistic on mean errors. [number]"""
    w: Fraction
    """θ_neg = base + (1 − w) δ_pos + δ_npo. [share]"""
    beside: Annotated[list[str], Field(min_length=1)]
    """Models of whose guidance it becomes the negative branch: base, theta1, or other
    objectives."""

    def title(self) -> str:
        """Return its name and strength."""
        return f"Diffusion-NPO (β {self.beta:g}, w {self.w:g})"

    def negative_branch(self) -> NegativeBranch:
        """Return the models whose guidance leads away from it."""
        return NegativeBranch(self.beside, self.w)

    def loss(self, policy: Errors, reference: Errors) -> Tensor:
        """Return ``npo`` of each pair, ``[B]``."""
        return npo(*policy, *reference, beta=self.beta)


def npo(
    policy_win: Tensor,
    policy_lose: Tensor,
    reference_win: Tensor,
    reference_lose: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Diffusion-NPO: ``dpo`` with the pair swapped, so that the policy learns what is bad.

    What it learns, delta_npo, stands on the negative branch of guidance (exact): see
    ``sampling.branches``.

    Returns:
        Loss of each pair, ``[B]``, in nats.

    References:
        Wang et al., Diffusion-NPO, arXiv:2505.11245.
    """
    return dpo(policy_lose, policy_win, reference_lose, reference_win, beta=beta)
