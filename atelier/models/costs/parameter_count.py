"""Parameter counts of a profile's networks, on the meta device, without loading weights.

The sizes of what is encoded, and the codec's passes, follow from the same configurations.
Those of the bases in params/ are known here (``published``), those of others are read from the
folder or from the hub.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from atelier.config.model import ModelParams
from atelier.config.training import Learns
from atelier.models import adapters, loading
from atelier.models.costs.pass_memory import PassMemory, fused_attention
from atelier.models.denoiser import quiet

_WIDTHS = ("joint_attention_dim", "cross_attention_dim", "cap_feat_dim")  # of text, by family
_CLIP = 77  # tokens
MASKED = ("chroma", "qwen_image", "z_image")  # families whose conditions have a mask of tokens
_MASK_BYTES = 2.0  # of a token's 0 or 1, which half precision holds
_HEADER = 500  # bytes of a cache's entry: names, digests
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_QUANTISED = {"int8": 1.0, "fp8": 1.0, "nf4": 0.53}  # with the scales of nf4's blocks of 64
_OPTIMIZER = {  # bytes of state a weight
    "adamw": 8.0,
    "adamw-fused": 8.0,
    "adamw-8bit": 2.0,
    "adafactor": 0.1,
    "muon": 4.0,
}


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
        encoding_bytes: Of the codec's pass that encodes one picture, or one tile.
        decoding_bytes: Of the pass that decodes one.
    """

    encoders: int
    codec: int
    codec_bytes: float
    prompt_bytes: float
    latent_bytes: float
    encoding_bytes: float
    decoding_bytes: float


def beside(params: ModelParams) -> Beside:
    """Count text encoders and codec, and what they make of a prompt and of a picture.

    Only configurations are read (of an unknown hub id, fetched: some kilobytes).

    Raises:
        ArtifactError: The folder is absent or is no pipeline.
    """
    with quiet():
        network = loading.network(params).config
        parts = loading.outlines(params)
    codec = parts.pop("vae")
    upcast = params.family == "sdxl" and codec.config.get("force_upcast", False)
    tokens, width, pooled = prompt_shape(params, network)
    masks = _MASK_BYTES * tokens if params.family in MASKED else 0.0
    codec_dtype = torch.float32 if upcast else getattr(torch, params.dtype)
    with quiet():
        codec.to(codec_dtype).eval()
    encoding, decoding = _codec_passes(params, codec)
    return Beside(
        encoders=sum(_weights(one) for one in parts.values()),
        codec=_weights(codec),
        codec_bytes=float(codec_dtype.itemsize),
        prompt_bytes=(tokens * width + pooled) * BYTES[params.dtype] + masks + _HEADER,
        latent_bytes=4.0 * math.prod(_latents(codec.config, params.pixels)) + _HEADER,
        encoding_bytes=encoding,
        decoding_bytes=decoding,
    )


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def prompt_shape(params: ModelParams, network: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return tokens, their width, and the width of the pooled embedding, 0 if there is none."""
    width = next(network[name] for name in _WIDTHS if network.get(name) is not None)
    tokens = {"sdxl": _CLIP * params.text_chunks, "sd3": _CLIP + params.text_tokens}
    pooled = network.get("pooled_projection_dim")
    if pooled is None and "projection_class_embeddings_input_dim" in network:
        sizes = 6 * (network["addition_time_embed_dim"] or 0)  # SDXL's six numbers of sizes
        pooled = (network["projection_class_embeddings_input_dim"] or sizes) - sizes
    return tokens.get(params.family, params.text_tokens), width, pooled or 0


def codec_step(codec: Mapping[str, Any]) -> int:
    """Return how many pixels a side of one cell of the codec's latents covers."""
    # Qwen-Image's lists what its blocks multiply the channels by.
    blocks = codec.get("block_out_channels") or codec.get("dim_mult") or (1, 1, 1, 1)
    return int(2 ** (len(blocks) - 1))


def _latents(codec: Mapping[str, Any], pixels: int) -> tuple[int, int, int]:
    """Channels, height and width of a picture's latents, as the codec has them."""
    side = pixels // codec_step(codec)
    return codec.get("latent_channels") or codec.get("z_dim") or 16, side, side


@torch.no_grad()
def _codec_passes(params: ModelParams, codec: Any) -> tuple[float, float]:
    """Bytes that encoding and decoding one picture take, or one tile of it."""
    side = min(params.codec.tile_pixels or params.pixels, params.pixels)
    frames = () if "dim_mult" not in codec.config else (1,)  # Qwen-Image's is one of videos
    channels, *sides = _latents(codec.config, side)
    dtype = next(codec.parameters()).dtype
    passes = (
        (codec.encode, torch.empty(1, 3, *frames, side, side, dtype=dtype, device="meta")),
        (codec.decode, torch.empty(1, channels, *frames, *sides, dtype=dtype, device="meta")),
    )
    found = []
    for one, given in passes:
        with fused_attention(), PassMemory() as memory:
            one(given)
        found.append(float(memory.peak))
    return found[0], found[1]


def outline(params: ModelParams, loras: list[Learns]) -> Outline:
    """Count the network that ``params`` names and what learns by each of ``loras``.

    Only configurations are read (of an unknown hub id, fetched: some kilobytes).

    Raises:
        ArtifactError: The folder is absent or is no pipeline.
    """
    network = loading.network(params)
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
