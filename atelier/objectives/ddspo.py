"""DDSPO on attribute prompts: a logistic loss with targets that the base gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.config.fields import Positive
from atelier.objectives.cpo import cpo
from atelier.objectives.objective import Teacher, TeacherTargets
from atelier.objectives.predictions import Predictions

if TYPE_CHECKING:
    from torch import Tensor


class DDSPO(TeacherTargets):
    """DDSPO on our prompts: the base is the teacher."""

    objective: Literal["ddspo"]
    """DDSPO: step-wise targets from the base."""
    beta: Positive
    """Strength β of the logistic on mean errors. [number]"""

    def taught_by(self) -> Teacher:
        """Return the base."""
        return "base"

    def title(self) -> str:
        """Return its name and strength."""
        return f"DDSPO with the base as teacher, β {self.beta:g}"

    def loss(self, at: Predictions) -> Tensor:
        """Return ``ddspo`` of each image, ``[B]``."""
        return ddspo(
            at.policy,
            at.reference,
            at.win,
            at.lose,
            beta=self.beta,
            weights=at.weights,
            has_loser=at.has_loser,
        )


def ddspo(
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    *,
    beta: float,
    weights: Tensor,
    has_loser: Tensor,
) -> Tensor:
    """DDSPO on attribute prompts: ``cpo`` weighted from outside, with the base's targets.

    ``w * -log sigmoid(-beta/2 * [mse(e,z^w) - mse(e0,z^w) - mse(e,z^l) + mse(e0,z^l)])``: the
    weight of a time multiplies the loss, where L_CPO's stands inside the sigmoid (exact).

    Two policies say at every step what is better and what is worse; where none were trained
    for it, a pretrained model does, under the prompt and under a degraded one (stated). Here
    the degraded prompt names the bad poles, the other the good ones, and both targets belong
    to one noisy latent (ours), which makes it the nearest relative of L_CPO: what SFT adds is
    the difference between the two.

    References:
        Kim et al., Direct Diffusion Score Preference Optimization, arXiv:2512.23426.
    """
    unweighted = weights.new_ones(())
    return weights * cpo(
        policy, reference, win, lose, beta=beta, weights=unweighted, has_loser=has_loser
    )
