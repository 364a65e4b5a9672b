"""L_stab (CPO-S): stabilized Complex Preference Optimization, with three loser targets.

Notation and sources as in ``cpo``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from atelier.config.fields import NonNegative, Positive
from atelier.objectives.objective import ChosenTeacher, Contrasts
from atelier.objectives.predictions import Predictions
from atelier.training.denoising_error import denoising_error, logistic

if TYPE_CHECKING:
    from torch import Tensor

LoserTarget = Literal["mirror-winner", "mirror-policy", "mirror-reference"]
Omega = NonNegative | Annotated[dict[str, NonNegative], Field(min_length=1)]  # one, or by root


class Stabilised(ChosenTeacher):
    """L_stab: the losing term has a fixed target, by one of three readings."""

    loser_target: LoserTarget
    """Which of three readings gives the loser's target; docs/method.md."""
    omega: Omega
    """How far past the winner θ is led, away from the loser; one number, or one for each root
    of the criteria. [number]"""
    k: NonNegative | None = None
    """Weight of the losing term; null: the reading's own. [number]"""
    dpo_beta: Positive | None = None
    """Puts the loss inside Diffusion-DPO's logistic with this β; null: it is a sum of squares.
    [number]"""

    @model_validator(mode="after")
    def _has_a_fixed_point(self) -> Stabilised:
        if isinstance(self.omega, dict):
            if self.loser_target != "mirror-winner":
                raise ValueError(
                    "omega by root needs loser_target mirror-winner, whose fixed point is "
                    f"linear in omega, got {self.loser_target}"
                )
        elif self.loser_target == "mirror-policy" and self.omega * (self.k or 1) >= 1:
            times_k = "" if self.k is None else f" times k, {self.k:g},"
            raise ValueError(
                f"omega{times_k} should be below 1 for mirror-policy (its fixed point is at "
                f"omega / (1 - omega)), got {self.omega:g}"
            )
        if self.loser_target == "mirror-reference" and self.k is not None:
            raise ValueError(
                "k should be null for mirror-reference, whose losing term omega weighs, got "
                f"{self.k:g}"
            )
        return self

    def title(self) -> str:
        """Return its name and strength."""
        return (
            "Stabilised Complex Preference Optimization, loser target "
            f"{self.loser_target}, ω {self._omega()}"
        )

    def details(self) -> list[str]:
        """Return how it departs from its usual form, in words that tables show."""
        found = super().details()
        if self.k is not None:
            found.append(f"losing term times {self.k:g} (ours)")
        if self.dpo_beta is not None:
            found.append(f"in the Diffusion-DPO frame, β {self.dpo_beta:g} (ours)")
        return found

    def contrasts(self) -> Contrasts:
        """Return a contrast for each root where omega differs by root."""
        omegas = self.omega if isinstance(self.omega, dict) else None
        return replace(super().contrasts(), omegas=omegas)

    def swept(self) -> float | None:
        """Return omega where it is one number."""
        return None if isinstance(self.omega, dict) else self.omega

    def needs_reference(self) -> bool:
        """Return whether the loser target or the frame does."""
        return self.loser_target == "mirror-reference" or self.dpo_beta is not None

    def is_logistic(self) -> bool:
        """Return whether the frame is; without it the loss is a sum of squares."""
        return self.dpo_beta is not None

    def loss(self, at: Predictions) -> Tensor:
        """Return ``cpo_s`` of each image, ``[B]``."""
        return cpo_s(
            at.policy,
            at.reference,
            at.win,
            at.lose,
            kind=self.loser_target,
            omega=self._strength(at),
            k=self.k,
            dpo_beta=self.dpo_beta,
            weights=at.weights,
            has_loser=at.has_loser,
        )

    def aim(self, at: Predictions) -> Tensor:
        """Return the fixed point, or the winner where there is no loser."""
        point = fixed_point(
            at.reference,
            at.win,
            at.lose,
            kind=self.loser_target,
            omega=self._strength(at),
            k=self.k,
        )
        return point.where(at.has_loser.reshape(-1, *[1] * (at.win.dim() - 1)), at.win)

    def _strength(self, at: Predictions) -> float | Tensor:
        if isinstance(self.omega, dict):
            assert at.omega is not None
            return at.omega
        return self.omega

    def _omega(self) -> str:
        if isinstance(self.omega, dict):
            return "by root (" + ", ".join(f"{k} {v:g}" for k, v in self.omega.items()) + ")"
        return f"{self.omega:g}"


class CPOS(Stabilised):
    """CPO-S on the pictures of the data set."""

    objective: Literal["cpo-s"]
    """CPO-S: the stabilized loss with a fixed target for the loser."""


def loser_target(
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    *,
    kind: LoserTarget,
    omega: float | Tensor,
) -> Tensor:
    """Return ``z^{l-tgt}``, the fixed target that replaces running away from ``z^l``.

    That such a target exists, with a stop-gradient and a strength omega, is stated; the three
    readings are ours:

    * ``mirror-winner``: ``z^w + omega (z^w - z^l)``
    * ``mirror-policy``: ``e + omega (e - z^l)``, recomputed at every step; k omega < 1
    * ``mirror-reference``: ``2 e0 - z^l``

    Args:
        policy: ``e``, ``[B, ...]``.
        reference: ``e0``, ``[B, ...]``.
        win: ``z^w``, ``[B, ...]``.
        lose: ``z^l``, ``[B, ...]``.
        kind: The reading.
        omega: How far past the winner, ≥ 0; one number, or ``[B, 1, ...]``.

    Returns:
        The target, detached, ``[B, ...]``.
    """
    if kind == "mirror-winner":
        return (win + omega * (win - lose)).detach()
    if kind == "mirror-reference":
        return (2 * reference - lose).detach()
    return (policy + omega * (policy - lose)).detach()


def fixed_point(
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    *,
    kind: LoserTarget,
    omega: float | Tensor,
    k: float | None = None,
) -> Tensor:
    """Return where CPO-S leaves the policy if nothing else held it, ``[B, ...]``.

    * ``mirror-winner``: ``z^w + k omega/(1 + k) (z^w - z^l)``, with k = 1 half of omega
    * ``mirror-policy``: ``z^w + k omega/(1 - k omega) (z^w - z^l)``
    * ``mirror-reference``: ``(z^w + omega (2 e0 - z^l)) / (1 + omega)``

    The Diffusion-DPO frame has the same one: its logistic falls with the sum of squares. The
    drift monitor measures the distance to this point, not to the winner, which CPO-S passes by
    design.
    """
    if kind == "mirror-reference":
        return (win + omega * (2 * reference - lose)) / (1 + omega)
    k = 1 if k is None else k
    if kind == "mirror-winner":
        return win + k * omega / (1 + k) * (win - lose)
    _refuse_no_fixed_point(k * omega)
    return win + k * omega / (1 - k * omega) * (win - lose)


def cpo_s(
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    *,
    kind: LoserTarget,
    omega: float | Tensor,
    weights: Tensor,
    has_loser: Tensor,
    k: float | None = None,
    dpo_beta: float | None = None,
) -> Tensor:
    """L_stab, stabilised CPO: two convex terms that pull to fixed targets.

    ``w * [mse(e, z^w) + k * mse(e, z^{l-tgt})]`` with ``k = omega`` for ``mirror-reference``
    and 1 otherwise, if ``k`` is not given. (That the concave losing term becomes a convex
    surrogate with a fixed target: stated. This form and a free ``k``: ours; see
    ``loser_target``.)

    With ``dpo_beta`` the same terms stand in the Diffusion-DPO frame, through which the method
    is stated to run (form ours):

    ``-log sigmoid(-beta/2 * w * [mse(e, z^w) - mse(e0, z^w)
    + k * (mse(e, z^{l-tgt}) - mse(e0, z^{l-tgt}))])``

    Its gradient is that of the sum times ``beta/2 * sigmoid(-logit)``: strong where the policy
    is no better than its reference, and fading where it is.

    Args:
        policy: ``e``, ``[B, ...]``; the only argument with a gradient.
        reference: ``e0``, ``[B, ...]``; read by ``mirror-reference`` and in the frame.
        win: ``z^w``, ``[B, ...]``.
        lose: ``z^l``, ``[B, ...]``.
        kind: The reading of the loser target.
        omega: How far past the winner, ≥ 0; one number, or ``[B, 1, ...]``.
        weights: omega(lambda_t) of each image, ``[B]``.
        has_loser: Whether the image has attributes at both poles, bool ``[B]``; elsewhere only
            the winner's term stays.
        k: Weight of the losing term, ≥ 0.
        dpo_beta: Strength inside the frame, > 0, as Diffusion-DPO's; None: no frame.

    Returns:
        Loss of each image, ``[B]``: in squared latent units, or in nats in the frame.

    Raises:
        ValueError: k omega ≥ 1 with ``mirror-policy``: the iteration has no fixed point.
    """
    if kind == "mirror-policy":
        _refuse_no_fixed_point(omega if k is None else k * omega)
    target = loser_target(policy, reference, win, lose, kind=kind, omega=omega)
    share: float | Tensor = 1 if k is None else k
    if kind == "mirror-reference":
        share = omega if isinstance(omega, float | int) else omega.flatten()

    def terms(at: Tensor) -> Tensor:
        losing = share * denoising_error(at, target)
        return denoising_error(at, win.detach()) + losing.where(has_loser, 0)

    if dpo_beta is None:
        return weights * terms(policy)
    return logistic(-0.5 * dpo_beta * weights * (terms(policy) - terms(reference).detach()))


def _refuse_no_fixed_point(omega: float | Tensor) -> None:
    largest = float(omega if isinstance(omega, float | int) else omega.max())
    if largest >= 1:
        raise ValueError(f"mirror-policy needs k * omega < 1, got {largest:g}")
