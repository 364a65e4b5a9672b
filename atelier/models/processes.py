"""Noise processes: forward noise, network targets and sampling steps of each parametrization.

Shapes: ``B`` images, ``...`` the latent's own dimensions. Time is in [0, 1]: 0 is clean, 1 is
noise. All arithmetic is float32 or better: in bfloat16 the least noise is exactly zero.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import torch
from torch import Tensor


class Process(Protocol):
    """The four questions every family answers the same way."""

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return the noisy latent ``x_t``, ``[B, ...]``."""

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return what the network should output at ``x_t``, ``[B, ...]``."""

    def denoised(self, noisy: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """Return the clean latent that ``prediction`` implies, ``[B, ...]``."""

    def snr(self, time: Tensor) -> Tensor:
        """Return the signal-to-noise ratio (power) at each time, ``[B]``; infinite at 0."""

    def clean_scale(self, time: Tensor) -> Tensor:
        """Return the squared error of ``denoised`` for one of the prediction, ``[B]``."""

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return what multiplies the clean latent and the noise in ``x_t``, each ``[B]``."""


@dataclass(frozen=True)
class RectifiedFlow:
    """Straight paths from image to noise, as FLUX was trained.

    ``x_t = (1 - t) x_0 + t eps``; the network predicts the velocity ``eps - x_0``
    (Liu et al. 2023, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206, Eq. 13).
    """

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return ``(1 - t) x_0 + t eps``."""
        t = _match(time, clean)
        return (1 - t) * clean + t * noise

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return the velocity ``eps - x_0``, the same at every time."""
        del time
        return noise - clean

    def denoised(self, noisy: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """Return ``x_t - t v``."""
        return noisy - _match(time, noisy) * prediction

    def snr(self, time: Tensor) -> Tensor:
        """Return ``((1 - t) / t)^2``."""
        return ((1 - time) / time).square()

    def clean_scale(self, time: Tensor) -> Tensor:
        """Return ``t^2``: the clean latents are ``x_t - t v``."""
        return time.square()

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``1 - t`` and ``t``."""
        return 1 - time, time


@dataclass(frozen=True)
class VariancePreserving:
    """Discrete variance-preserving process, as SDXL was trained.

    ``x_t = alpha_t x_0 + sigma_t eps`` with ``alpha_t^2 + sigma_t^2 = 1``
    (Ho et al. 2020, arXiv:2006.11239, Eq. 4).

    Attributes:
        alphas_cumprod: ``alpha_t^2`` at each of the T training steps, ``[T]``.
        predicts: ``epsilon`` (SDXL base) or ``v`` (Salimans & Ho 2022, arXiv:2202.00512,
            App. D).
    """

    alphas_cumprod: Tensor
    predicts: Literal["epsilon", "v"]

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return ``alpha_t x_0 + sigma_t eps``."""
        alpha, sigma = self._scales(time, like=clean)
        return alpha * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return ``eps``, or ``v = alpha_t eps - sigma_t x_0``."""
        if self.predicts == "epsilon":
            return noise
        alpha, sigma = self._scales(time, like=clean)
        return alpha * noise - sigma * clean

    def denoised(self, noisy: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
        """Return ``(x_t - sigma_t eps) / alpha_t``, or ``alpha_t x_t - sigma_t v``."""
        alpha, sigma = self._scales(time, like=noisy)
        if self.predicts == "epsilon":
            return (noisy - sigma * prediction) / alpha
        return alpha * noisy - sigma * prediction

    def snr(self, time: Tensor) -> Tensor:
        """Return ``alpha_t^2 / sigma_t^2``."""
        alpha2 = _on(self.alphas_cumprod, time.device)[self.step(time)]
        return alpha2 / (1 - alpha2)

    def clean_scale(self, time: Tensor) -> Tensor:
        """Return ``sigma_t^2 / alpha_t^2`` for ε, ``sigma_t^2`` for v."""
        alpha2 = _on(self.alphas_cumprod, time.device)[self.step(time)]
        return (1 - alpha2) / alpha2 if self.predicts == "epsilon" else 1 - alpha2

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``alpha_t`` and ``sigma_t``."""
        alpha2 = _on(self.alphas_cumprod, time.device)[self.step(time)]
        return alpha2.sqrt(), (1 - alpha2).sqrt()

    def step(self, time: Tensor) -> Tensor:
        """Return the training step nearest to each time, long ``[B]``."""
        return (time * (len(self.alphas_cumprod) - 1)).round().long()

    def _scales(self, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha2 = _on(self.alphas_cumprod, like.device)[self.step(time)]
        return _match(alpha2.sqrt(), like), _match((1 - alpha2).sqrt(), like)


def ancestral(
    process: Process, noisy: Tensor, prediction: Tensor, time: Tensor, to: Tensor, churn: float
) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of one stochastic sampling step from ``time`` to ``to``.

    ``x_s = alpha_s x_0 + sqrt(sigma_s^2 - d^2) eps + d z`` with
    ``d = churn sigma_s sqrt(1 - snr_t / snr_s)``, x_0 and eps as the prediction implies them:
    for a variance-preserving process DDIM's step with eta = churn (exact), and by the same
    formula a step of the rectified flow that keeps its marginals (ours).

    Args:
        process: Whose noise it is.
        noisy: ``x_t``, ``[B, ...]``.
        prediction: The network's output there, ``[B, ...]``.
        time: ``t``, ``[B]``.
        to: ``s < t``, ``[B]``, > 0.
        churn: 0 is deterministic, 1 adds all the noise that the forward process would.

    Returns:
        The mean, ``[B, ...]``, and the deviation, ``[B]``.

    References:
        Song et al., Denoising Diffusion Implicit Models, arXiv:2010.02502, Eq. 12 and 16.
    """
    (alpha, sigma), (alpha_to, sigma_to) = process.scales(time), process.scales(to)
    clean = process.denoised(noisy, prediction, time)
    noise = (noisy - _match(alpha, noisy) * clean) / _match(sigma, noisy)
    deviation = churn * sigma_to * (1 - process.snr(time) / process.snr(to)).clamp(min=0).sqrt()
    rest = (sigma_to.square() - deviation.square()).clamp(min=0).sqrt()
    return _match(alpha_to, noisy) * clean + _match(rest, noisy) * noise, deviation


@lru_cache(maxsize=8)
def _on(schedule: Tensor, device: torch.device) -> Tensor:
    """A schedule on a device; copied once, for each copy would wait for the device."""
    return schedule.to(device)


def _match(per_image: Tensor, like: Tensor) -> Tensor:
    """``[B]`` → ``[B, 1, …]``, ready to scale ``like``."""
    if per_image.shape != like.shape[:1]:
        raise ValueError(f"time {tuple(per_image.shape)} does not fit {tuple(like.shape)}")
    return per_image.to(torch.promote_types(like.dtype, torch.float32)).reshape(
        -1, *[1] * (like.dim() - 1)
    )
