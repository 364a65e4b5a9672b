"""L_stab (CPO-S): stabilised Complex Preference Optimization, with three loser targets.

Notation and sources as in ``cpo``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from atelier.config.fields import NonNegative
from atelier.objectives.objective import ChosenTeacher, Contrasts, Predictions
from atelier.training.denoising_error import denoising_error

if TYPE_CHECKING:
    from torch import Tensor

LoserTarget = Literal["mirror-winner", "mirror-policy", "mirror-reference"]
Omega = NonNegative | Annotated[dict[str, NonNegative], Field(min_length=1)]  # one, or by root


class CPOS(ChosenTeacher):
    """L_stab: the losing term has a fixed target, by one of three readings."""

    objective: Literal["cpo-s"]
    loser_target: LoserTarget
    omega: Omega  # how far past the winner; see loser_target

    @model_validator(mode="after")
    def _has_a_fixed_point(self) -> CPOS:
        if isinstance(self.omega, dict):
            if self.loser_target != "mirror-winner":
                raise ValueError(
                    "omega by root needs loser_target mirror-winner, whose fixed point is "
                    f"linear in omega, got {self.loser_target}"
                )
        elif self.loser_target == "mirror-policy" and self.omega >= 1:
            raise ValueError(
                f"omega should be below 1 for mirror-policy (its fixed point is at "
                f"omega / (1 - omega)), got {self.omega:g}"
            )
        return self

    def about(self) -> str:
        """Return its sentence for tables."""
        name = (
            "Stabilised Complex Preference Optimization, loser target "
            f"{self.loser_target}, ω {self._omega()}"
        )
        return ", ".join([name, *self._details()])

    def contrasts(self) -> Contrasts:
        """Return a contrast for each root where omega differs by root."""
        omegas = self.omega if isinstance(self.omega, dict) else None
        return Contrasts(self.winner, self.confidence == "weighs", omegas)

    def swept(self) -> float | None:
        """Return omega where it is one number."""
        return None if isinstance(self.omega, dict) else self.omega

    def needs_reference(self) -> bool:
        """Return whether the loser target does."""
        return self.loser_target == "mirror-reference"

    def is_logistic(self) -> bool:
        """Return False: its loss is a sum of squares."""
        return False

    def loss(self, at: Predictions) -> Tensor:
        """Return ``cpo_s`` of each image, ``[B]``."""
        return cpo_s(
            at.policy,
            at.reference,
            at.win,
            at.lose,
            kind=self.loser_target,
            omega=self._strength(at),
            weights=at.weights,
            has_loser=at.has_loser,
        )

    def aim(self, at: Predictions) -> Tensor:
        """Return the fixed point, or the winner where there is no loser."""
        point = fixed_point(
            at.reference, at.win, at.lose, kind=self.loser_target, omega=self._strength(at)
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
    * ``mirror-policy``: ``e + omega (e - z^l)``, recomputed at every step; omega < 1
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

    Raises:
        ValueError: omega ≥ 1 with ``mirror-policy``: the iteration has no fixed point.
    """
    if kind == "mirror-winner":
        return (win + omega * (win - lose)).detach()
    if kind == "mirror-reference":
        return (2 * reference - lose).detach()
    _refuse_no_fixed_point(omega)
    return (policy + omega * (policy - lose)).detach()


def fixed_point(
    reference: Tensor, win: Tensor, lose: Tensor, *, kind: LoserTarget, omega: float | Tensor
) -> Tensor:
    """Return where CPO-S leaves the policy if nothing else held it, ``[B, ...]``.

    * ``mirror-winner``: ``z^w + omega/2 (z^w - z^l)``
    * ``mirror-policy``: ``z^w + omega/(1 - omega) (z^w - z^l)``
    * ``mirror-reference``: ``(z^w + omega (2 e0 - z^l)) / (1 + omega)``

    The drift monitor measures the distance to this point, not to the winner, which CPO-S
    passes by design.
    """
    if kind == "mirror-winner":
        return win + omega / 2 * (win - lose)
    if kind == "mirror-reference":
        return (win + omega * (2 * reference - lose)) / (1 + omega)
    _refuse_no_fixed_point(omega)
    return win + omega / (1 - omega) * (win - lose)


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
) -> Tensor:
    """L_stab, stabilised CPO: two convex terms that pull to fixed targets.

    ``w * [mse(e, z^w) + k * mse(e, z^{l-tgt})]`` with ``k = omega`` for ``mirror-reference``
    and 1 otherwise. (That the concave losing term becomes a convex surrogate with a fixed
    target: stated. This form: ours; see ``loser_target``.)

    Args:
        policy: ``e``, ``[B, ...]``; the only argument with a gradient.
        reference: ``e0``, ``[B, ...]``; read by ``mirror-reference`` alone.
        win: ``z^w``, ``[B, ...]``.
        lose: ``z^l``, ``[B, ...]``.
        kind: The reading of the loser target.
        omega: How far past the winner, ≥ 0; one number, or ``[B, 1, ...]``.
        weights: omega(lambda_t) of each image, ``[B]``.
        has_loser: Whether the image has attributes at both poles, bool ``[B]``; elsewhere only
            the winner's term stays.

    Returns:
        Loss of each image, ``[B]``, in squared latent units.
    """
    target = loser_target(policy, reference, win, lose, kind=kind, omega=omega)
    losing = denoising_error(policy, target)
    if kind == "mirror-reference":
        losing = (omega if isinstance(omega, float | int) else omega.flatten()) * losing
    winning = denoising_error(policy, win.detach())
    return weights * (winning + losing.where(has_loser, 0))


def _refuse_no_fixed_point(omega: float | Tensor) -> None:
    largest = float(omega if isinstance(omega, float | int) else omega.max())
    if largest >= 1:
        raise ValueError(f"mirror-policy needs omega < 1, got {largest:g}")
