"""GPU-hours of a whole corpus, computed from FLOP counts: nothing here is measured."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import document, gpu_step
from benchmarks.lines import Size, quantity

SECTION = "planning"
SHARE = 0.45  # of the peak that a step is taken to reach
PEAK = 989e12  # FLOP/s of products in bfloat16 that an H100's data sheet gives, no sparsity
PAINTINGS = (10_277, 1_000_000)
DEVICES = (1, 8, 64)
TRAINED = 0.8  # of the paintings
_NAMES = {"sdxl": "SDXL", "flux": "FLUX.1"}
_WIDTHS = (128, 256, 512, 512)  # of the codec that both families have, but for its channels


def table(size: Size) -> str:
    """Return a Markdown table: a row a family and piece of work, a column a plan."""
    heads = ["1024 px, computed", "TFLOP an image"]
    heads += [f"{count:,} on {devices}" for count in PAINTINGS for devices in DEVICES]
    return document.rows(heads, _rows(size))


def _rows(size: Size) -> Iterator[Sequence[str]]:
    for family, name in _NAMES.items():
        counted = gpu_step.count(_asked(family, size))
        learning = counted["policy_tflops"]
        works = (
            ("pictures encoded once", _encoding(family, 1024 if size == "full" else 64), 1.0),
            ("SFT, an epoch", learning, TRAINED),
            ("CPO-S, an epoch", counted["step_tflops_per_image"], TRAINED),
        )
        for work, tera, share in works:
            hours = [
                hours_of(tera * 1e12, share * count, devices)
                for count in PAINTINGS
                for devices in DEVICES
            ]
            cells = [quantity(value, "h") for value in hours]
            yield [f"{name}: {work}", quantity(tera, ""), *cells]


def hours_of(flops: float, images: float, devices: int) -> float:
    """Return hours at ``SHARE`` of the peak of each device, as if none waited for another."""
    return flops * images / (PEAK * SHARE * devices) / 3600


def _asked(family: str, size: Size) -> "gpu_step.argparse.Namespace":
    words = ["--family", family, "--batch", "1", "--checkpointing", "--count-only"]
    toy = ["--size", "toy", "--pixels", "64", "--rank", "2"] if size == "tiny" else []
    return gpu_step.parse([*words, *toy, "--out", "unused"])


def _encoding(family: str, pixels: int) -> float:
    """TFLOP of the published codec's encoder on one picture."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        codec = AutoencoderKL(
            block_out_channels=_WIDTHS,
            down_block_types=["DownEncoderBlock2D"] * len(_WIDTHS),
            up_block_types=["UpDecoderBlock2D"] * len(_WIDTHS),
            layers_per_block=2,
            latent_channels=gpu_step.CHANNELS[family],
        )
        picture = torch.zeros(1, 3, pixels, pixels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        codec.encode(picture)
    return float(counter.get_total_flops()) / 1e12
