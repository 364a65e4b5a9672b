"""The ``Denoiser`` protocol that every model family implements, and its text conditions.

Shapes: ``B`` images, ``C H W`` latents. Outside this wing latents are float32, time is in
[0, 1] and every family answers the same protocol, ``Denoiser``.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from atelier.models.processes import Process

# What the text encoders make of prompts: tensors by name, prompts along dimension 0.
# Only the family that made it looks inside.
Condition = dict[str, Tensor]
# The one entry that is the picture's own, not the prompt's: its original height and width and
# the crop's top and left, in pixels, ``[B, 4]``. Families that know no sizes ignore it.
FRAME = "frame"
# 1 for each token that the network may read, 0 for padding, ``[B, L]``; of families that mask.
MASK = "mask"


class Denoiser(Protocol):
    """A painter: its network, its process, and the way between pixels, words and tensors."""

    component: str  # the network's name in a diffusers pipeline: `transformer` or `unet`
    # A diffusers model; LoRA adapters are added to it. One from a folder or from the hub is
    # loaded when it is first asked for: after the encoders left memory, if they do.
    network: Any
    process: Process
    token_budget: int  # prompt tokens that the narrowest encoder reads
    codec_pixels: int | None  # area that the codec takes at once; None: that of a whole batch

    @property
    def identity(self) -> str:
        """Return a hash of codec, encoders and their weights, which keys the caches."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return latents, float32 ``[B, C, H, W]``, of pixels in [-1, 1], ``[B, 3, H, W]``."""

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return pixels in [-1, 1], float32 ``[B, 3, H, W]``."""

    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return the condition of each prompt; every tensor has one row a prompt."""

    def count_tokens(self, prompt: str) -> int:
        """Return how much of ``token_budget`` the prompt needs."""

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the network's output at ``noisy``, float32 ``[B, C, H, W]``."""

    def sample(
        self,
        noise: Tensor,
        condition: Condition,
        empty: Condition,
        *,
        steps: int,
        guidance: float,
        distilled_guidance: float | None = None,
    ) -> Tensor:
        """Return clean latents from ``noise``; ``empty`` is the condition of the prompt ''.

        ``distilled_guidance`` is what a network with guidance as an input reads.

        Raises:
            ParamsError: It is given to a network without such an input, or not to one with it.
        """

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""

    def release_encoders(self, *, texts: bool = True) -> None:
        """Drop the codec and, with ``texts``, the text encoders from memory."""

    @property
    def network_config(self) -> Any:
        """Return the network's configuration, without loading it."""

    def pipeline(self) -> Any:
        """Return the diffusers pipeline around the same weights, for sampling and saving."""

    def parts(self) -> Any:
        """Return that pipeline as it is; its network may not be loaded yet."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence diffusers' and transformers' remarks while a pipeline is put together."""
    from diffusers.utils import logging as diffusers_log
    from transformers.utils import logging as transformers_log

    logs = (diffusers_log, transformers_log)
    before = [log.get_verbosity() for log in logs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log in logs:
            log.set_verbosity_error()
            log.disable_progress_bar()
        try:
            yield
        finally:
            for log, verbosity in zip(logs, before, strict=True):
                log.set_verbosity(verbosity)
                log.enable_progress_bar()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host's memory on ``device``, without waiting for the device.

    A copy from memory that may be paged out waits until the device has done all that it was
    asked for, so that it then idles until the host has asked for more.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "cpu")


def take(condition: Condition, rows: Tensor) -> Condition:
    """Return the given rows of a condition, ``[B]`` indices."""
    return {name: tensor[rows] for name, tensor in condition.items()}


def join(conditions: Sequence[Condition]) -> Condition:
    """Put conditions one after the other along dimension 0."""
    return {
        name: torch.cat([condition[name] for condition in conditions]) for name in conditions[0]
    }
