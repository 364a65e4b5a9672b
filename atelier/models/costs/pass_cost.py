"""Cost of the network's passes, counted on torch's meta device: FLOPs, and activations."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from atelier.config.model import ModelParams
from atelier.config.training import Learns
from atelier.models import adapters, loading
from atelier.models.costs import parameter_count
from atelier.models.costs.pass_memory import FUSED, PassMemory, fused_attention
from atelier.models.denoiser import MASK, Condition, Denoiser, quiet

_META = torch.device("meta")
_BACK = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class PassCost:
    """What one image costs in the network.

    Attributes:
        frozen: FLOPs of a pass without gradient.
        policy: FLOPs of a pass and of going back through it.
        held: Bytes of activations in a pass with gradient, at the most.
    """

    frozen: float
    policy: float
    held: float


def count(
    params: ModelParams, lora: Learns, *, half: bool, gradient_checkpointing: bool
) -> PassCost:
    """Count the passes of one square image; there are no weights, and nothing is computed.

    Args:
        params: The base.
        lora: What learns.
        half: Whether the passes are made in half precision, whatever the base's.
        gradient_checkpointing: Whether passes are made again for the gradient.

    Raises:
        ArtifactError: The folder is absent or is no pipeline.
    """
    painter = _painter(params)
    return of(
        painter,
        painter.latent_shape(params.pixels),
        _condition(params, painter.network.config),
        lora,
        dtype=torch.bfloat16 if half else getattr(torch, params.dtype),
        gradient_checkpointing=gradient_checkpointing,
    )


def of(
    painter: Denoiser,
    latents: tuple[int, ...],
    condition: Condition,
    lora: Learns,
    *,
    dtype: torch.dtype,
    gradient_checkpointing: bool,
) -> PassCost:
    """Count the passes of one image of a painter whose network is on the meta device.

    Args:
        painter: It gets an adapter more, and the precision ``dtype``.
        latents: Shape of an image's, ``(C, H, W)``.
        condition: Of one prompt, on the meta device; its mask may have a content.
        lora: What learns.
        dtype: In which precision the passes are made.
        gradient_checkpointing: Whether passes are made again for the gradient.
    """
    network = painter.network
    if lora == "full":
        learning: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        network.requires_grad_(True)
    else:
        with _META:
            adapters.add(network, "policy", lora, seed=0)
        learning = adapters.learning(network, "policy")
    with quiet():
        network.to(dtype)
    if gradient_checkpointing:
        network.enable_gradient_checkpointing()
    noisy = torch.empty(1, *latents, device=_META)
    time = torch.empty(1, device=_META)
    with learning, fused_attention():
        with _counter() as frozen, torch.no_grad():
            painter.predict(noisy, time, condition)
        with _counter() as policy:
            _learn(painter, noisy, time, condition)
        network.zero_grad(set_to_none=True)
        with PassMemory() as memory:  # alone: a counter holds what it was called with
            _learn(painter, noisy, time, condition)
    return PassCost(frozen.get_total_flops(), policy.get_total_flops(), memory.peak)


def _learn(painter: Denoiser, noisy: Tensor, time: Tensor, condition: Condition) -> None:
    error: Any = painter.predict(noisy, time, condition).mean()
    error.backward()


def _painter(params: ModelParams) -> Denoiser:
    """A painter around a network without weights, which can predict and nothing else."""
    from diffusers import DDPMScheduler

    network, codec = loading.network(params), loading.outlines(params)["vae"]
    family = loading.family(params.family)
    with quiet():
        bare = SimpleNamespace(
            components={"unet": network, "transformer": network},
            config=SimpleNamespace(force_zeros_for_empty_prompt=True),
            scheduler=DDPMScheduler(),
            set_progress_bar_config=lambda **_: None,
            tokenizer=SimpleNamespace(chat_template=None),
            vae=codec,
            vae_scale_factor=parameter_count.codec_step(codec.config),
        )
    painter: Denoiser = family.around(bare, params)
    return painter


def _condition(params: ModelParams, network: Mapping[str, Any]) -> Condition:
    """A prompt as long as prompts may be."""
    tokens, width, pooled = parameter_count.prompt_shape(params, network)
    found = {"tokens": torch.empty(1, tokens, width, device=_META)}
    if pooled:
        found["pooled"] = torch.empty(1, pooled, device=_META)
    if params.family in parameter_count.MASKED:
        # Z-Image's painter cuts prompts by it, for which it has to have a content.
        device = "cpu" if params.family == "z_image" else _META
        found[MASK] = torch.ones(1, tokens, device=device)
    return found


def _counter() -> FlopCounterMode:
    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        count: Any = sdpa_flop_count
        return int(count(query, key, value))

    def backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        count: Any = sdpa_backward_flop_count
        return int(count(grad, query, key, value))

    return FlopCounterMode(display=False, custom_mapping={FUSED: forward, _BACK: backward})
