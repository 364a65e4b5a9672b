"""DDSPO on attribute prompts: the loss of L_CPO, with targets that the base gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.config.fields import Positive
from atelier.objectives.cpo import cpo
from atelier.objectives.objective import Predictions, Teacher, TeacherTargets

if TYPE_CHECKING:
    from torch import Tensor


class DDSPO(TeacherTargets):
    """DDSPO on our prompts: L_CPO with the base as teacher."""

    objective: Literal["ddspo"]
    beta: Positive

    def taught_by(self) -> Teacher:
        """Return the base."""
        return "base"

    def about(self) -> str:
        """Return its sentence for tables."""
        name = f"DDSPO with the base as teacher, β {self.beta:g}"
        return ", ".join([name, *self._details()])

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
    """DDSPO on attribute prompts: the loss of ``cpo``, with targets that the base gives.

    Two policies say at every step what is better and what is worse; where none were trained
    for it, a pretrained model does, under the prompt and under a degraded one (stated). Here
    the degraded prompt names the bad poles, the other the good ones, and both targets belong
    to one noisy latent (ours), which makes it the nearest relative of L_CPO: what SFT adds is
    the difference between the two.

    References:
        Kim et al., Direct Diffusion Score Preference Optimization, arXiv:2512.23426.
    """
    return cpo(policy, reference, win, lose, beta=beta, weights=weights, has_loser=has_loser)
