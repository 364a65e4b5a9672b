"""Losses as pure functions of predictions; nothing here knows a network.

Shapes: ``B`` images, ``...`` the latent's dimensions. Every error is a mean over an image's
latent, so beta and omega do not depend on its size; sums are ``C*H*W`` times larger.

Notation, from docs/method.md: ``e`` the policy's prediction, ``e0`` the reference's (the base
model, adapter off), ``z^w`` and ``z^l`` what θ1 predicts at the same noisy latent when its
prompt names the good and the bad attributes. CPO is Complex Preference Optimization
(Meng et al., arXiv:2601.04300), not TRL's Contrastive one; its paper's numbered equations
could not be obtained, and each docstring says what is stated there and what is ours.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LoserTarget = Literal["mirror-winner", "mirror-policy", "mirror-reference"]
Weighting = Literal["constant", "snr"]


def denoising_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each image.

    In float32 or better: a preference is a small difference between two of these, and
    bfloat16 keeps 8 bits of each.

    Args:
        prediction: Network output, ``[B, ...]``.
        target: What it should have been, ``[B, ...]``.

    Returns:
        Error of each image, ``[B]``, in squared latent units.

    Raises:
        ValueError: The shapes differ (broadcasting would hide it).
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ"
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).square().flatten(1).mean(1)


def weight(snr: Tensor, weighting: Weighting) -> Tensor:
    """Return omega(lambda_t), the weight of each time, ``[B]``.

    ``constant``: 1. ``snr``: ``snr / (1 + snr)``, which is bounded and fades towards pure
    noise, where the two targets differ least in what an eye would see. The paper states that
    a weight exists, not which; both choices are ours.
    """
    if weighting == "constant":
        return torch.ones_like(snr)
    return torch.where(snr.isinf(), torch.ones_like(snr), snr / (1 + snr))


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
    margin = gain - torch.where(has_loser, loss, torch.zeros_like(loss))
    return -F.logsigmoid(-0.5 * beta * weights * margin)


def loser_target(
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    *,
    kind: LoserTarget,
    omega: float,
) -> Tensor:
    """Return ``z^{l-tgt}``, the fixed target that replaces running away from ``z^l``.

    That such a target exists, with a stop-gradient and a strength omega, is stated; the three
    readings are ours:

    * ``mirror-winner``: ``z^w + omega (z^w - z^l)``
    * ``mirror-policy``: ``e + omega (e - z^l)``, recomputed at every step; omega < 1
    * ``mirror-reference``: ``2 e0 - z^l``

    Returns:
        The target, detached, ``[B, ...]``.

    Raises:
        ValueError: omega ≥ 1 with ``mirror-policy``: the iteration has no fixed point.
    """
    if kind == "mirror-winner":
        return (win + omega * (win - lose)).detach()
    if kind == "mirror-reference":
        return (2 * reference - lose).detach()
    if omega >= 1:
        raise ValueError(f"mirror-policy needs omega < 1, got {omega:g}")
    return (policy + omega * (policy - lose)).detach()


def fixed_point(
    reference: Tensor, win: Tensor, lose: Tensor, *, kind: LoserTarget, omega: float
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
    if omega >= 1:
        raise ValueError(f"mirror-policy needs omega < 1, got {omega:g}")
    return win + omega / (1 - omega) * (win - lose)


def cpo_s(
    policy: Tensor,
    reference: Tensor,
    win: Tensor,
    lose: Tensor,
    *,
    kind: LoserTarget,
    omega: float,
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
        omega: How far past the winner, ≥ 0.
        weights: omega(lambda_t) of each image, ``[B]``.
        has_loser: Whether the image has attributes at both poles, bool ``[B]``; elsewhere only
            the winner's term stays.

    Returns:
        Loss of each image, ``[B]``, in squared latent units.
    """
    target = loser_target(policy, reference, win, lose, kind=kind, omega=omega)
    scale = omega if kind == "mirror-reference" else 1.0
    losing = scale * denoising_error(policy, target)
    winning = denoising_error(policy, win.detach())
    return weights * (winning + torch.where(has_loser, losing, torch.zeros_like(losing)))
