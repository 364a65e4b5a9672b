"""Predictions at one noisy latent, from which CPO, CPO-S and DDSPO compute their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """Predictions of policy, reference and teacher at one noisy latent.

    Attributes:
        policy: ``e``, ``[B, ...]``; alone has a gradient.
        reference: ``e0``, ``[B, ...]``; the policy's own where the objective needs none.
        win: ``z^w``, ``[B, ...]``.
        lose: ``z^l``, ``[B, ...]``.
        weights: omega(lambda_t) of each image, ``[B]``.
        has_loser: Whether the contrast names both poles, bool ``[B]``.
        omega: Strength of each image's contrast, ``[B, 1, ...]``, where it differs by root.
    """

    policy: Tensor
    reference: Tensor
    win: Tensor
    lose: Tensor
    weights: Tensor
    has_loser: Tensor
    omega: Tensor | None
