"""Painters of a published base's shape with random weights, and random latents and prompts.

Nothing is downloaded: speed, memory and FLOPs do not depend on what a network has learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from atelier.config.base import FluxNetwork, Network, SDXLNetwork, ZImageNetwork
from atelier.config.training import LoRA
from atelier.models import codec
from atelier.models.costs import parameter_count, pass_cost, published
from atelier.models.costs.pass_cost import PassCost
from atelier.models.denoiser import MASK, Denoiser, quiet
from atelier.models.small import pipelines
from atelier.training.corpus import Corpus, Pairs

Size = Literal["full", "toy"]
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
IMAGES = 16  # in the corpus of random latents
_LATENT_PIXELS = 8  # a side of a latent's cell, in pixels


@dataclass(frozen=True)
class Shape:
    """A family, at its published size and at toy size.

    Attributes:
        name: In tables.
        source: Of the published base, whose configuration is known here.
        toy: The same classes, small enough for a test.
        channels: Of latents.
        tokens: Of a prompt of full length.
        width: Of a prompt's tokens, by size.
        pooled: Width of a prompt's summary, by size; 0: the family has none.
        batch: Images in a step, where nothing else is asked for.
    """

    name: str
    source: str
    toy: Network
    channels: int
    tokens: int
    width: Mapping[Size, int]
    pooled: Mapping[Size, int]
    batch: int


SHAPES: Mapping[str, Shape] = {
    "sdxl": Shape(
        "SDXL", "stabilityai/stable-diffusion-xl-base-1.0",
        SDXLNetwork(
            kind="sdxl", predicts="epsilon", widths=[16, 32], attention=[False, True], layers=1,
            head_width=16, groups=8, text_widths=[8, 16], pooled_width=16,
        ),
        channels=4, tokens=77, width={"full": 2048, "toy": 24},
        pooled={"full": 1280, "toy": 16}, batch=8,
    ),
    "z_image": Shape(
        "Z-Image", "Tongyi-MAI/Z-Image",
        ZImageNetwork(
            kind="z_image", blocks=1, refiner_blocks=1, heads=2, head_width=16, text_width=16,
        ),
        channels=16, tokens=256, width={"full": 2560, "toy": 16},
        pooled={"full": 0, "toy": 0}, batch=4,
    ),
    "flux": Shape(
        "FLUX.1", "black-forest-labs/FLUX.1-dev",
        FluxNetwork(
            kind="flux", double_blocks=1, single_blocks=1, heads=2, head_width=16,
            text_width=16, pooled_width=16,
        ),
        channels=16, tokens=512, width={"full": 4096, "toy": 16},
        pooled={"full": 768, "toy": 16}, batch=4,
    ),
}  # fmt: skip


def lora(rank: int) -> LoRA:
    """Return a LoRA on all attention."""
    return LoRA(rank=rank, alpha=rank, rslora=False, dora=False, dropout=0, targets=ATTENTION)


def painter(family: str, size: Size, device: str, dtype: torch.dtype) -> Denoiser:
    """Return a painter whose network has the family's size; its codec and encoders are gone."""
    shape = SHAPES[family]
    pictures = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with quiet():
        built = pipelines.painter(
            shape.toy,
            codec.fit(pictures, _LATENT_PIXELS, shape.channels),
            ["a sea"],
            text_tokens=shape.tokens,
            text_chunks=1,
            seed=0,
        )
    network = _published(shape, device, dtype) if size == "full" else built.network.to(device)
    if device != "meta":
        _stir(network)
    built.pipeline().register_modules(**{built.component: network})
    built.network = network
    built.release_encoders()
    return built


def _published(shape: Shape, device: str, dtype: torch.dtype) -> Any:
    """The published network with random weights, made on the device in its precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return published.network(shape.source, device).eval()
    finally:
        torch.set_default_dtype(before)


def _stir(network: Any) -> None:
    """Draw the weights that begin as zeros, or as what the memory held.

    Zeros have no scale, by which a quantized layer divides, and let no gradient through.
    """
    for parameter in network.parameters():
        if not (parameter.any() and parameter.isfinite().all()):
            parameter.data.normal_(std=0.02)


def to_fp8(network: Any) -> None:
    """Quantize the linear layers as ``model.quantise: fp8`` does while it loads them."""
    from torchao.quantization import Float8WeightOnlyConfig, quantize_

    quantize_(network, Float8WeightOnlyConfig())


def corpus(family: str, size: Size, pixels: int) -> Corpus:
    """Return random latents, and random prompts of full length."""
    shape = SHAPES[family]
    source = torch.Generator().manual_seed(0)
    side = pixels // _LATENT_PIXELS
    prompts = {"tokens": torch.randn(4, shape.tokens, shape.width[size], generator=source)}
    if shape.pooled[size]:
        prompts["pooled"] = torch.randn(4, shape.pooled[size], generator=source)
    if family in parameter_count.MASKED:
        prompts[MASK] = torch.ones(4, shape.tokens)
    every = torch.ones(IMAGES, 1, dtype=torch.long)
    return Corpus(
        latents=torch.randn(IMAGES, shape.channels, side, side, generator=source),
        prompts=prompts,
        rows={"caption": every, "winner": 2 * every, "loser": 3 * every},
        empty=0,
    )


def pairs() -> Pairs:
    """Return the corpus' images in pairs."""
    half = IMAGES // 2
    first = torch.arange(half)
    return Pairs(first, first + half, torch.ones(half, dtype=torch.long), torch.ones(half))


def cost(
    family: str, size: Size, pixels: int, rank: int, *, gradient_checkpointing: bool
) -> PassCost:
    """Return what one image costs in the network, counted on torch's meta device."""
    built = painter(family, size, "meta", torch.bfloat16)
    random = corpus(family, size, pixels)
    one = torch.tensor([0])
    condition = random.condition(one, one, torch.device("meta"))
    if MASK in condition:  # prompts are cut by it, for which it has to have a content
        condition[MASK] = random.prompts[MASK][one]
    return pass_cost.of(
        built,
        tuple(random.latents[one].shape[1:]),
        condition,
        lora(rank),
        dtype=torch.bfloat16,
        gradient_checkpointing=gradient_checkpointing,
    )


def weights(family: str, size: Size) -> int:
    """Return how many weights the frozen network has."""
    network = painter(family, size, "meta", torch.bfloat16).network
    return sum(parameter.numel() for parameter in network.parameters())
