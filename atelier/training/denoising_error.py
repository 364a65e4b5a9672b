"""Denoising error per image, its weight by time, and the logistic loss.

This module does not depend on networks. torch is imported inside the functions, because the
settings of the objectives import this module, and every command reads settings.

Shapes: ``B`` images, ``...`` the latent's dimensions. Every error is a mean over an image's
latent, so beta and omega do not depend on its size; sums are ``C*H*W`` times larger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.config.training import MinSNR, Weighting

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.models.processes import Process


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
    import torch

    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ"
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).square().flatten(1).mean(1)


def weight(snr: Tensor, weighting: Literal["constant", "snr"]) -> Tensor:
    """Return omega(lambda_t), the weight of each time, ``[B]``.

    ``constant``: 1. ``snr``: ``snr / (1 + snr)``, which is bounded and fades towards pure
    noise, where the two targets differ least in what an eye would see. The paper states that
    a weight exists, not which; both choices are ours.
    """
    import torch

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


def weights_at(process: Process, time: Tensor, weighting: Weighting) -> Tensor:
    """Return omega(lambda_t) of each image at its time, ``[B]``."""
    snr = process.snr(time)
    if isinstance(weighting, MinSNR):
        return min_snr(snr, process.clean_scale(time), weighting.min_snr_gamma)
    return weight(snr, weighting)


def logistic(logit: Tensor) -> Tensor:
    """Return ``-log sigmoid(logit)``; log 2 at 0, 0 far above it, ``-logit`` far below."""
    import torch.nn.functional as F

    return -F.logsigmoid(logit)


def gradient_factor(losses: Tensor) -> float:
    """Return the mean of ``sigmoid(-logit)`` of logistic losses: near 0 no gradient is left."""
    return float(-(-losses.detach()).expm1().mean())
