"""Drift diagnostics: distances to winner, loser and aim in each run of CPO, and an alarm.

Shapes as in ``denoising_error``.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from atelier.training.denoising_error import denoising_error

_WINDOW = 10  # reports that are averaged before the alarm may ring


def values(
    policy: Tensor, reference: Tensor, win: Tensor, lose: Tensor, aim: Tensor
) -> dict[str, float]:
    """Return the monitor's means over a batch.

    Args:
        policy: ``e``, ``[B, ...]``.
        reference: ``e0``, ``[B, ...]``.
        win: ``z^w``, ``[B, ...]``.
        lose: ``z^l``, ``[B, ...]``.
        aim: Where the objective leads: the fixed point for CPO-S, ``z^w`` for L_CPO.

    Returns:
        ``win_error``, ``lose_error`` and the reference's two; ``accuracy``, the share of images
        whose policy leans to the winner more than its reference does; ``drift``,
        ``sqrt(mse(e, e0))``; ``aim_error`` and ``aim_error_reference``, the distance to the
        aim. All in (squared) latent units, accuracy a fraction.
    """
    errors = {
        "win_error": denoising_error(policy, win),
        "lose_error": denoising_error(policy, lose),
        "win_error_reference": denoising_error(reference, win),
        "lose_error_reference": denoising_error(reference, lose),
        "aim_error": denoising_error(policy, aim),
        "aim_error_reference": denoising_error(reference, aim),
    }
    margin = (errors["win_error"] - errors["win_error_reference"]) - (
        errors["lose_error"] - errors["lose_error_reference"]
    )
    return {
        **{name: error.mean().item() for name, error in errors.items()},
        "accuracy": (margin < 0).float().mean().item(),
        "drift": denoising_error(policy, reference).sqrt().mean().item(),
        "separation": denoising_error(win, lose).sqrt().mean().item(),
    }


def pair_values(
    policy: Sequence[Tensor], reference: Sequence[Tensor], *, towards_loser: bool
) -> dict[str, float]:
    """Return the monitor's means over a batch of pairs of pictures.

    Args:
        policy: The policy's errors on winners and losers, each ``[B]``.
        reference: The reference's, likewise.
        towards_loser: Whether the objective leads to the losers, as NPO does.

    Returns:
        As ``values``, without ``drift`` and ``separation``, which need predictions.
    """
    win, lose = (error.detach() for error in policy)
    base_win, base_lose = reference
    margin = (win - base_win) - (lose - base_lose)
    if towards_loser:
        margin = -margin
    aim, base_aim = (lose, base_lose) if towards_loser else (win, base_win)
    means = {
        "win_error": win,
        "lose_error": lose,
        "win_error_reference": base_win,
        "lose_error_reference": base_lose,
        "aim_error": aim,
        "aim_error_reference": base_aim,
        "accuracy": (margin < 0).float(),
    }
    return {name: value.mean().item() for name, value in means.items()}


@dataclass
class Alarm:
    """Rings when the policy is farther from its aim than the untouched reference is."""

    excess: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def drifting(self, reported: Mapping[str, float]) -> bool:
        """Take one report; say whether the mean over the last ten is on the wrong side."""
        self.excess.append(reported["aim_error"] - reported["aim_error_reference"])
        full = len(self.excess) == _WINDOW
        return full and float(torch.tensor(list(self.excess)).mean()) > 0


def drifted(reports: Iterable[Mapping[str, float]]) -> bool:
    """Say whether the alarm rang anywhere in a run's reports, in their order."""
    alarm = Alarm()
    return any(alarm.drifting(values) for values in reports if "aim_error" in values)
