"""Diffusion-SDPO on pairs of pictures: DPO with a safe share of the losers' gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from atelier.config.fields import Fraction, Positive
from atelier.objectives.dpo import dpo
from atelier.objectives.objective import Errors, Pairwise

if TYPE_CHECKING:
    from torch import Tensor, nn


class SDPO(Pairwise):
    """Diffusion-SDPO: DPO whose losing gradient never raises the winner's error."""

    objective: Literal["sdpo"]
    """Diffusion-SDPO: Diffusion-DPO with a safeguarded losing gradient."""
    beta: Positive
    """Strength β of the logistic on mean errors. [number]"""
    slack: Fraction
    """Share of the largest safe losing gradient that is not used. [share]"""

    def title(self) -> str:
        """Return its name and strength."""
        return f"Diffusion-SDPO on pairs of paintings, β {self.beta:g}, slack {self.slack:g}"

    def loss(self, policy: Errors, reference: Errors) -> Tensor:
        """Return ``dpo`` of each pair, ``[B]``: the value is DPO's, the gradient is not."""
        return dpo(*policy, *reference, beta=self.beta)

    def safeguarded(
        self,
        losses: Tensor,
        policy: Errors,
        counts: Tensor,
        trained: Sequence[nn.Parameter],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return DPO's mean loss with the safe share of the losers' gradient, and that share.

        Both gradients are those of the pairs at hand: where a batch is taken in parts, or by
        several processes, each part is safe for its own winners.
        """
        import torch

        pulls = counts * pull(losses, self.beta)
        win, lose = ((pulls * error).mean() for error in policy)
        # Weights that no picture depends on, as of Qwen-Image's last block, have zeros.
        down, up = (
            torch.autograd.grad(error, trained, retain_graph=True, materialize_grads=True)
            for error in (win, lose)
        )
        share = safe_share(down, up, slack=self.slack)
        gradient = win - share * lose
        loss = (counts * losses).mean().detach() + gradient - gradient.detach()
        return loss, {"safe_share": share}


def safe_share(
    win_gradient: Sequence[Tensor], lose_gradient: Sequence[Tensor], *, slack: float
) -> Tensor:
    """Return how much of the losing gradient Diffusion-SDPO lets through, in [0, 1].

    A small step down ``g_w - lambda g_l`` changes the winner's error by
    ``-rate * <g_w, g_w - lambda g_l>``, which is no rise as long as
    ``lambda <g_w, g_l> <= |g_w|^2``. So ``lambda = (1 - slack) |g_w|^2 / <g_w, g_l>`` where the
    two gradients point the same way, at most 1, and 1 where they do not.

    The rule is exact; that the gradients are those of all trained weights is ours (the
    published code takes those of the network's output, which is cheaper). The promise is that
    of plain gradient descent: Adam's step is another direction.

    Args:
        win_gradient: ``g_w`` of the winners' errors, a tensor for each weight.
        lose_gradient: ``g_l`` of the losers' errors, likewise.
        slack: Share of the largest safe lambda that is not used, in [0, 1].

    References:
        Fu et al., Diffusion-SDPO, arXiv:2511.03317.
    """
    import torch

    pairs = list(zip(win_gradient, lose_gradient, strict=True))
    along = torch.stack([(win * lose).sum() for win, lose in pairs]).sum()
    square = torch.stack([win.square().sum() for win in win_gradient]).sum()
    largest = torch.where(along > 0, square / along, torch.full_like(along, torch.inf))
    return ((1 - slack) * largest).clamp(max=1.0)


def pull(loss: Tensor, beta: float) -> Tensor:
    """Return ``beta/2 * sigmoid(beta/2 * margin)``, the gradient of a logistic loss by margin.

    Args:
        loss: From ``dpo``, ``[B]``: ``-log sigmoid(-x)`` has the derivative ``1 - exp(-loss)``.
        beta: As given to it.

    Returns:
        What multiplies the gradients of ``e_w - e_l``, detached, ``[B]``.
    """
    return 0.5 * beta * -(-loss.detach()).expm1()
