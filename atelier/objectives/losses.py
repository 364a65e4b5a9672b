"""Losses as pure functions of predictions; nothing here knows a network.

Shapes: ``B`` images, ``...`` the latent's dimensions. Every error is a mean over an image's
latent, so beta and omega do not depend on its size; sums are ``C*H*W`` times larger.

Notation, from docs/method.md: ``e`` the policy's prediction, ``e0`` the reference's (the base
model, adapter off), ``z^w`` and ``z^l`` what θ1 predicts at the same noisy latent when its
prompt names the good and the bad attributes. CPO is Complex Preference Optimization
(Meng et al., arXiv:2601.04300), not TRL's Contrastive one; its paper's numbered equations
could not be obtained, and each docstring says what is stated there and what is ours.
"""

from collections.abc import Sequence
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


def min_snr(snr: Tensor, clean_scale: Tensor, gamma: float) -> Tensor:
    """Return omega(lambda_t) that gives clean latents the weight ``min(snr, gamma)``, ``[B]``.

    ``clean_scale * min(snr, gamma)``, where an error of the prediction counts ``clean_scale``
    times as an error of the clean latents. For ε that is ``min(snr, gamma) / snr``, for v
    ``min(snr, gamma) / (snr + 1)`` (exact); for a rectified flow ``t^2 min(snr, gamma)``
    (ours, by the same rule). That CPO may be weighted so is our choice.

    Args:
        snr: Signal-to-noise ratio of each image's time, ``[B]``; may be infinite.
        clean_scale: ``Process.clean_scale`` of the same times, ``[B]``.
        gamma: The largest weight, > 0; 5 in the source.

    References:
        Hang et al., Efficient Diffusion Training via Min-SNR, arXiv:2303.09556, Sec. 3.4.
    """
    return clean_scale * snr.clamp(max=gamma)


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

    Two policies say at every step what is better and what is worse; where nobody trained
    such, a pretrained model does, under the prompt and under a degraded one (stated). Here the
    degraded prompt names the bad poles, the other the good ones, and both targets belong to
    one noisy latent (ours), which makes it the nearest relative of L_CPO: what SFT adds is the
    difference between the two.

    References:
        Kim et al., Direct Diffusion Score Preference Optimization, arXiv:2512.23426.
    """
    return cpo(policy, reference, win, lose, beta=beta, weights=weights, has_loser=has_loser)


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
    return weights * (winning + torch.where(has_loser, losing, torch.zeros_like(losing)))


def dpo(
    policy_win: Tensor,
    policy_lose: Tensor,
    reference_win: Tensor,
    reference_lose: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Diffusion-DPO: the policy gains more on the winning picture than on the losing one.

    ``-log sigmoid(-beta/2 * [(e_w - r_w) - (e_l - r_l)])`` (exact). Each argument is a
    ``denoising_error`` of one picture against its own target; noise and time are shared by the
    pair.

    Args:
        policy_win: ``e_w``, the policy's error on the winner, ``[B]``.
        policy_lose: ``e_l``, on the loser, ``[B]``.
        reference_win: ``r_w``, the frozen reference's error on the winner, ``[B]``.
        reference_lose: ``r_l``, on the loser, ``[B]``.
        beta: Pull towards the reference, > 0, on a mean error and with the ½; 5000 in the
            source's SDXL runs.

    Returns:
        Loss of each pair, ``[B]``, in nats; log 2 where policy and reference agree.

    References:
        Wallace et al., Diffusion Model Alignment Using Direct Preference Optimization,
        arXiv:2311.12908.
    """
    margin = (policy_win - reference_win.detach()) - (policy_lose - reference_lose.detach())
    return -F.logsigmoid(-0.5 * beta * margin)


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


def mapo(policy_win: Tensor, policy_lose: Tensor, *, beta: float, scale: float) -> Tensor:
    """MaPO: the winner's denoising loss and a margin that needs no reference.

    ``e_w - beta * log sigmoid(phi(scale e_w) - phi(scale e_l))`` with
    ``phi(x) = x / (exp(x) - 1)``, which falls from 1 to 0; from the published description, not
    compared with its code. exp overflows where an error is large, so phi is computed by expm1
    of -x.

    Args:
        policy_win: ``e_w``, ``[B]``, ≥ 0.
        policy_lose: ``e_l``, ``[B]``, ≥ 0.
        beta: Weight of the margin, > 0.
        scale: Of the errors inside phi, > 0.

    Returns:
        Loss of each pair, ``[B]``; a sum of squared latent units and nats.

    References:
        Hong et al., Margin-aware Preference Optimization for Aligning Diffusion Models
        without Reference, arXiv:2406.06424.
    """
    margin = _falling(scale * policy_win) - _falling(scale * policy_lose)
    return policy_win - beta * F.logsigmoid(margin)


def safe_share(
    win_gradient: Sequence[Tensor], lose_gradient: Sequence[Tensor], *, slack: float
) -> Tensor:
    """Return how much of the losing gradient Diffusion-SDPO lets through, in [0, 1].

    A small step down ``g_w - lambda g_l`` changes the winner's error by
    ``-rate * <g_w, g_w - lambda g_l>``, which is no rise as long as
    ``lambda <g_w, g_l> <= |g_w|^2``. So ``lambda = (1 - slack) |g_w|^2 / <g_w, g_l>`` where the
    two gradients point the same way, at most 1, and 1 where they do not.

    Gradients are of all trained weights (exact; the source also has a cheaper form in output
    space). The promise is that of plain gradient descent: Adam's step is another direction.

    Args:
        win_gradient: ``g_w`` of the winners' errors, a tensor for each weight.
        lose_gradient: ``g_l`` of the losers' errors, likewise.
        slack: Share of the largest safe lambda that is not used, in [0, 1].

    References:
        Fu et al., Diffusion-SDPO, arXiv:2511.03317.
    """
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
    return 0.5 * beta * -torch.expm1(-loss.detach())


def spo(ratio_win: Tensor, ratio_lose: Tensor, *, beta: float, clip: float) -> Tensor:
    """SPO: one step's better and worse outcome, by how likely the policy has become to take it.

    ``-log sigmoid(beta log clip(rho_w) - beta log clip(rho_l))`` with rho clipped to
    ``1 ± clip`` (exact); a clipped ratio has no gradient.

    Args:
        ratio_win: ``log rho_w``, policy against reference, mean over C, H, W, ``[B]``.
        ratio_lose: ``log rho_l``, ``[B]``.
        beta: Strength, > 0; 10 in the source.
        clip: Half-width of the trust region, in (0, 1); 0.1 in the source.

    Returns:
        Loss of each pair, ``[B]``, in nats.

    References:
        Liang et al., Step-aware Preference Optimization, arXiv:2406.04314.
    """
    bounds = torch.tensor([1 - clip, 1 + clip], dtype=torch.float64).log().tolist()
    win, lose = (ratio.clamp(*bounds) for ratio in (ratio_win, ratio_lose))
    return -F.logsigmoid(beta * (win - lose))


def gaussian_log_ratio(
    taken: Tensor, policy: Tensor, reference: Tensor, deviation: Tensor
) -> Tensor:
    """Return ``log p_policy(taken) - log p_reference(taken)``, mean over C, H, W, ``[B]``.

    Both steps are Gaussian with one deviation, so constants cancel:
    ``(mse(taken, reference) - mse(taken, policy)) / (2 deviation^2)``.

    Args:
        taken: Where the step ended, ``[B, ...]``.
        policy: The policy's mean, ``[B, ...]``.
        reference: The reference's mean, ``[B, ...]``.
        deviation: Standard deviation of the step, ``[B]``, > 0.
    """
    gained = denoising_error(taken, reference).detach() - denoising_error(taken, policy)
    return gained / (2 * deviation.square())


def sum_beta(mean_beta: float, elements: int) -> float:
    """Return the beta for errors summed over C, H, W that acts as ours on mean errors."""
    return mean_beta / elements


def mean_beta(sum_beta: float, elements: int) -> float:
    """Return our beta that acts on mean errors as ``sum_beta`` does on sums over C, H, W."""
    return sum_beta * elements


def with_half(beta_without: float) -> float:
    """Return our beta for one of a code that leaves out the ½: its 2500 is our 5000."""
    return 2 * beta_without


def _falling(x: Tensor) -> Tensor:
    """``x / (exp(x) - 1)`` for x ≥ 0, with its gradient, from 0 to beyond overflow."""
    small = x < 1e-3
    away = torch.where(small, torch.ones_like(x), x)
    series = 1 - x / 2 + x.square() / 12  # of the next term, x^4 / 720, nothing is left
    return torch.where(small, series, away * torch.exp(-away) / -torch.expm1(-away))


def _refuse_no_fixed_point(omega: float | Tensor) -> None:
    largest = float(torch.as_tensor(omega).max())
    if largest >= 1:
        raise ValueError(f"mirror-policy needs omega < 1, got {largest:g}")
