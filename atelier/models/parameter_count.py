"""Parameter counts of a profile's networks, on the meta device, without loading weights.

The sizes of what is encoded follow from the same configurations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atelier.config.model import ModelParams
from atelier.config.training import Learns
from atelier.models import adapters, loading
from atelier.models.denoiser import quiet

_WIDTHS = ("joint_attention_dim", "cross_attention_dim", "cap_feat_dim")  # of text, by family
_CLIP = 77  # tokens
_HEADER = 500  # bytes of a cache's entry: names, digests
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_QUANTISED = {"int8": 1.0, "nf4": 0.53}  # with the scales of nf4's blocks of 64
_OPTIMIZER = {"adamw": 8.0, "adamw-8bit": 2.0, "adafactor": 0.1}  # bytes of state a weight


@dataclass(frozen=True)
class Outline:
    """Counts of weights.

    Attributes:
        frozen: Of the base.
        linear: Of them, those of linear layers, which quantising reaches.
        adapters: Of each adapter that was asked for, in order; full weights are as many.
    """

    frozen: int
    linear: int
    adapters: tuple[int, ...]


@dataclass(frozen=True)
class Beside:
    """What a base has beside its network, and the sizes of what that encodes.

    Attributes:
        encoders: Weights of all text encoders.
        codec: Weights of the codec.
        codec_bytes: Of a weight of the codec, and of a number in its passes.
        prompt_bytes: Of the condition of one prompt on disk.
        latent_bytes: Of the latents of one picture on disk.
    """

    encoders: int
    codec: int
    codec_bytes: float
    prompt_bytes: float
    latent_bytes: float


def beside(params: ModelParams) -> Beside:
    """Count text encoders and codec, and what they make of a prompt and of a picture.

    Only configurations are read (of a hub id, fetched: some kilobytes).

    Raises:
        ArtifactError: The folder is absent or is no pipeline.
    """
    with quiet():
        parts = loading.outlines(params)
        network = loading.skeleton(params).network.config
    codec = parts.pop("vae")
    upcast = params.family == "sdxl" and codec.config.get("force_upcast", False)
    return Beside(
        encoders=sum(_weights(one) for one in parts.values()),
        codec=_weights(codec),
        codec_bytes=4.0 if upcast else BYTES[params.dtype],
        prompt_bytes=_numbers_of_a_prompt(params, network) * BYTES[params.dtype] + _HEADER,
        latent_bytes=4.0 * _numbers_of_a_picture(params, codec.config) + _HEADER,
    )


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _numbers_of_a_prompt(params: ModelParams, network: Mapping[str, Any]) -> int:
    """Tokens times width, and the pooled embedding where there is one."""
    width = next(network[name] for name in _WIDTHS if network.get(name) is not None)
    tokens = {"sdxl": _CLIP * params.text_chunks, "sd3": _CLIP + params.text_tokens}
    pooled = network.get("pooled_projection_dim")
    if pooled is None and "projection_class_embeddings_input_dim" in network:
        sizes = 6 * (network["addition_time_embed_dim"] or 0)  # SDXL's six numbers of sizes
        pooled = (network["projection_class_embeddings_input_dim"] or sizes) - sizes
    return int(tokens.get(params.family, params.text_tokens) * width + (pooled or 0))


def _numbers_of_a_picture(params: ModelParams, codec: Mapping[str, Any]) -> int:
    channels = codec.get("latent_channels") or codec.get("z_dim") or 16
    if "block_out_channels" in codec:
        halvings = len(codec["block_out_channels"]) - 1
    else:  # Qwen-Image's counts them so
        halvings = len(codec.get("temperal_downsample") or (False, True, True))
    return int(channels * (params.pixels // 2**halvings) ** 2)


def outline(params: ModelParams, loras: list[Learns]) -> Outline:
    """Count the network that ``params`` names and what learns by each of ``loras``.

    Only configurations are read (of a hub id, fetched: some kilobytes).

    Raises:
        ArtifactError: The folder is absent or is no pipeline.
    """
    network = loading.skeleton(params).network
    frozen = sum(parameter.numel() for parameter in network.parameters())
    linear = sum(
        module.weight.numel() for module in network.modules() if isinstance(module, nn.Linear)
    )
    counts = []
    with torch.device("meta"):
        for number, lora in enumerate(loras):
            if lora == "full":
                counts.append(frozen)
                continue
            adapters.add(network, f"lora{number}", lora, seed=0)
            weights = adapters.weights(network, f"lora{number}").values()
            counts.append(sum(parameter.numel() for parameter in weights))
    return Outline(frozen, linear, tuple(counts))


def frozen_bytes(counted: Outline, params: ModelParams) -> float:
    """Return what the base occupies; codec and encoders, which are released, left out."""
    whole = BYTES[params.dtype]
    linear = whole if params.quantise is None else _QUANTISED[params.quantise]
    return counted.linear * linear + (counted.frozen - counted.linear) * whole


def trained_bytes(weights: int, optimizer: str, *, averaged: bool) -> float:
    """Return what weights that learn occupy: float32, gradient, optimizer, their average."""
    return weights * (4 + 4 + _OPTIMIZER[optimizer] + 4 * averaged)
