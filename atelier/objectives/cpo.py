"""L_CPO: Complex Preference Optimization, not stabilized.

Meng et al., arXiv:2601.04300; not TRL's *Contrastive* PO. The paper's numbered equations could
not be obtained, so docstrings say what is stated there and what is ours. Notation as in
docs/method.md: ``e`` the policy's prediction, ``e0`` the reference's (the base model, adapter
off), ``z^w`` and ``z^l`` what θ1 predicts at the same noisy latent when its prompt names the
good and the bad attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.config.fields import Positive
from atelier.objectives.objective import ChosenTeacher
from atelier.objectives.predictions import Predictions
from atelier.training.denoising_error import denoising_error, logistic

if TYPE_CHECKING:
    from torch import Tensor


class CPO(ChosenTeacher):
    """L_CPO, not stabilised: the logistic loss in the Diffusion-DPO frame."""

    objective: Literal["cpo"]
    """L_CPO of the paper, in the frame of Diffusion-DPO."""
    beta: Positive
    """Strength β of the logistic on mean errors; larger values keep θ nearer to the reference.
    [number]"""

    def title(self) -> str:
        """Return its name and strength."""
        return f"Complex Preference Optimization, not stabilised, β {self.beta:g}"

    def loss(self, at: Predictions) -> Tensor:
        """Return ``cpo`` of each image, ``[B]``."""
        return cpo(
            at.policy,
            at.reference,
            at.win,
            at.lose,
            beta=self.beta,
            weights=at.weights,
            has_loser=at.has_loser,
        )


def cpo(
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    *,
    beta: float,
    weights: Tensor,
    has_loser: Tensor,
) -> Tensor:
    """L_CPO, the logistic loss on how much nearer the winner the policy is than its reference.

    ``-log sigmoid(-beta/2 * w * [mse(e,z^w) - mse(e0,z^w) - mse(e,z^l) + mse(e0,z^l)])``

    Both targets belong to one noisy latent, so the squares of ``e`` cancel and the argument is
    linear, ``beta * w * <e - e0, z^w - z^l> / CHW``: there is no finite minimiser and the
    gradient never turns. That is what CPO-S stabilises. (Loss: stated; its Diffusion-DPO frame
    with ½ and a mean: our reconstruction.)

    Args:
        policy: ``e``, ``[B, ...]``; the only argument with a gradient.
        reference: ``e0``, ``[B, ...]``.
        win: ``z^w``, ``[B, ...]``.
        lose: ``z^l``, ``[B, ...]``.
        beta: Strength of the preference against the reference, > 0.
        weights: omega(lambda_t) of each image, ``[B]``.
        has_loser: Whether the image has attributes at both poles, bool ``[B]``; elsewhere only
            the winner's two terms stay.

    Returns:
        Loss of each image, ``[B]``, in nats; log 2 where policy and reference agree.
    """
    gain = denoising_error(policy, win.detach()) - denoising_error(reference, win).detach()
    loss = denoising_error(policy, lose.detach()) - denoising_error(reference, lose).detach()
    margin = gain - loss.where(has_loser, 0)
    return logistic(-0.5 * beta * weights * margin)
