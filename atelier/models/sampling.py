"""Prompts → pictures, each from its own seed: the same wherever it stands in a batch."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atelier.reporting import Report

if TYPE_CHECKING:
    from atelier.models import Denoiser


def paint(
    painter: "Denoiser",
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float,
    pixels: int,
    batch_images: int,
    report: Report,
    against: Sequence[str] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Paint one picture a prompt, in order.

    Args:
        painter: In the state (base or adapter) that is to paint.
        prompts: One a picture.
        seeds: Of each picture's starting noise.
        steps: Sampling steps.
        guidance: Classifier-free guidance; 1 is off.
        pixels: Side of the square pictures.
        batch_images: Pictures painted at once.
        report: Told how many are done.
        against: What guidance leads away from, one a picture; None for the empty prompt.

    Yields:
        Pictures ``[H, W, 3]``, 8 bits a channel.
    """
    empty = painter.encode_texts([""])
    for start in range(0, len(prompts), batch_images):
        rows = slice(start, start + batch_images)
        noise = starting_noise(painter.latent_shape(pixels), seeds[rows])
        device = next(painter.network.parameters()).device
        latents = painter.sample(
            noise.to(device),
            painter.encode_texts(prompts[rows]),
            empty if against is None else painter.encode_texts(against[rows]),
            steps=steps,
            guidance=guidance,
        )
        yield from to_bytes(painter.decode_latents(latents))
        report(min(start + batch_images, len(prompts)), {})


def starting_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """Return standard normal noise, ``[B, C, H, W]``, each image from its own seed."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def to_bytes(pixels: Tensor) -> NDArray[np.uint8]:
    """Return pixels in [-1, 1], ``[B, 3, H, W]``, as ``[B, H, W, 3]`` of 8 bits."""
    scaled = (pixels.clamp(-1, 1) + 1) * 127.5
    array: NDArray[np.uint8] = scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return array


def to_pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """Return pictures ``[B, H, W, 3]`` of 8 bits as pixels in [-1, 1], ``[B, 3, H, W]``."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
