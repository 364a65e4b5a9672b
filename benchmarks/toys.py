"""Networks of the published shapes at a size that two cores can train, and pictures for them.

A tenth of SDXL's widths, with its three levels; FLUX's two kinds of blocks in its proportion of
one to two. Latents and prompts come from the engine's own cache on disk.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atelier.config.base import FluxNetwork, Network, SDXLNetwork
from atelier.config.training import LoRA, Times, Training
from atelier.images import Framed, Pixels
from atelier.models.denoiser import Denoiser, quiet
from atelier.models.small import pipelines
from atelier.objectives.cpo_s import CPOS
from atelier.reporting import silent
from atelier.training import latents
from atelier.training.corpus import Corpus
from benchmarks.lines import Size

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
OBJECTIVE = CPOS(
    objective="cpo-s", loser_target="mirror-winner", winner="labelled", omega=6.0,
    teacher="sft", confidence="ignored", weighting="constant", learning_rate=5e-5,
)  # fmt: skip
ROLES = ("caption", "winner", "loser")


@dataclass(frozen=True)
class Toy:
    """One family at toy size.

    Attributes:
        network: Its widths.
        codec: Widths of the codec's levels, in the published proportion to the network's.
        channels: Of latents.
        tokens: That the longer text encoder reads.
        pixels: Side of pictures.
        batch: Images in a step.
    """

    network: Network
    codec: tuple[int, ...]
    channels: int
    tokens: int
    pixels: int
    batch: int


TOYS: Mapping[Size, Mapping[str, Toy]] = {
    "full": {
        "sdxl": Toy(
            SDXLNetwork(
                kind="sdxl", predicts="epsilon", widths=[64, 128, 256],
                attention=[False, True, True], layers=2, head_width=32, groups=32,
                text_widths=[64, 128], pooled_width=128,
            ),
            codec=(24, 48, 96, 96), channels=4, tokens=77, pixels=128, batch=4,
        ),
        "flux": Toy(
            FluxNetwork(
                kind="flux", double_blocks=3, single_blocks=6, heads=8, head_width=32,
                text_width=256, pooled_width=64,
            ),
            codec=(16, 24, 48, 48), channels=16, tokens=64, pixels=192, batch=4,
        ),
    },
    "tiny": {
        "sdxl": Toy(
            SDXLNetwork(
                kind="sdxl", predicts="epsilon", widths=[16, 32], attention=[False, True],
                layers=1, head_width=16, groups=8, text_widths=[8, 16], pooled_width=16,
            ),
            codec=(8, 8, 8, 8), channels=4, tokens=77, pixels=64, batch=2,
        ),
        "flux": Toy(
            FluxNetwork(
                kind="flux", double_blocks=1, single_blocks=1, heads=2, head_width=16,
                text_width=16, pooled_width=16,
            ),
            codec=(8, 8, 8, 8), channels=16, tokens=16, pixels=64, batch=2,
        ),
    },
}  # fmt: skip
IMAGES = 16


def painter(toy: Toy) -> Denoiser:
    """Build one with random weights, its text encoders and a codec of the published kind."""
    from diffusers import AutoencoderKL

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        codec = AutoencoderKL(
            block_out_channels=toy.codec,
            down_block_types=["DownEncoderBlock2D"] * len(toy.codec),
            up_block_types=["UpDecoderBlock2D"] * len(toy.codec),
            layers_per_block=2,
            norm_num_groups=8,
            latent_channels=toy.channels,
            sample_size=toy.pixels,
            shift_factor=0.0,
            use_quant_conv=toy.network.kind == "sdxl",
            use_post_quant_conv=toy.network.kind == "sdxl",
        ).eval()
        codec.requires_grad_(False)
        built = pipelines.painter(
            toy.network, codec, prompts("caption"),
            text_tokens=toy.tokens, text_chunks=1, seed=0,
        )  # fmt: skip
    _stir(built.network)
    return built


def _stir(network: Any) -> None:
    """Small networks begin with a last layer of zeros, through which no gradient comes."""
    source = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=source)


def prompts(role: str) -> list[str]:
    """Return the prompts of one role, one an image."""
    said = {"caption": "a quiet sea", "winner": "clear light", "loser": "muddy colours"}
    return [f"{said[role]}, number {number}" for number in range(IMAGES)]


def pictures(pixels: int) -> list[Pixels]:
    """Return as many random pictures as there are prompts."""
    source = np.random.default_rng(0)
    return list(source.integers(0, 256, (IMAGES, pixels, pixels, 3), dtype=np.uint8))


def corpus(built: Denoiser, toy: Toy, folder: Path) -> Corpus:
    """Encode all once into a cache in ``folder``, from which the steps then read."""
    shown = pictures(toy.pixels)
    names = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in shown]
    by_name = dict(zip(names, shown, strict=True))
    every = ["", *(prompt for role in ROLES for prompt in prompts(role))]
    conditions = latents.texts(built, every, folder=folder, batch_texts=16, report=silent)
    encoded = latents.latents(
        built,
        names,
        [(toy.pixels, toy.pixels)] * IMAGES,
        lambda image, size: Framed(by_name[image], size, (0, 0)),
        folder=folder,
        batch_images=8,
        report=silent,
    )
    rows = torch.arange(len(ROLES) * IMAGES).reshape(len(ROLES), IMAGES, 1) + 1
    return Corpus(
        latents=encoded.latents,
        prompts=conditions,
        rows=dict(zip(ROLES, rows, strict=True)),
        empty=0,
    )


def lora(rank: int) -> LoRA:
    """Return a LoRA on all attention."""
    return LoRA(rank=rank, alpha=rank, rslora=False, dora=False, dropout=0, targets=ATTENTION)


def training(toy: Toy, count: int, report_steps: int) -> Training:
    """Return the settings of ``count`` steps, with clipping and averaging."""
    return Training(
        steps=count,
        batch_images=toy.batch,
        images_at_once=None,
        warmup_steps=0,
        schedule="constant",
        optimizer="adamw",
        weight_decay=0.0,
        clip_norm=1.0,
        ema_decay=0.998,
        precision="fp32",
        gradient_checkpointing=False,
        compile=False,
        times=Times(uniform_share=1.0, logit_mean=0.0, logit_std=1.0, shift=1.0),
        offset_noise=0,
        seed=0,
        checkpoint_steps=10**9,
        checkpoints_kept=1,
        report_steps=report_steps,
        grids=None,
        explosion=None,
        drift_stop=False,
    )
