"""GPU-hours of a whole corpus: from counted FLOPs, at a rate that was measured if one was."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from atelier.models.costs import measured_steps
from atelier.models.costs.measured_steps import Measured
from benchmarks import document, shapes
from benchmarks.lines import Size, quantity
from tasks.run import paths

SECTION = "planning"
SHARE = 0.45  # of the peak that a step is taken to reach
PEAK = 989e12  # FLOP/s of products in bfloat16 that an H100's data sheet gives, no sparsity
PAINTINGS = (10_277, 1_000_000)
DEVICES = (1, 8, 64)
TRAINED = 0.8  # of the paintings
FAMILIES = ("sdxl", "flux")
_RANK = 64
_WIDTHS = (128, 256, 512, 512)  # of the codec that both families have, but for its channels


def table(size: Size) -> str:
    """Return a Markdown table: a row a family and piece of work, a column a plan."""
    found = measured_steps.read(paths.GPU_STEP) if paths.GPU_STEP.is_file() else None
    heads = ["1024 px, computed", "TFLOP an image"]
    heads += [f"{count:,} on {devices}" for count in PAINTINGS for devices in DEVICES]
    return document.rows(heads, _rows(size, found))


def _rows(size: Size, found: Measured | None) -> Iterator[Sequence[str]]:
    network: shapes.Size = "full" if size == "full" else "toy"
    pixels = 1024 if size == "full" else 64
    for family in FAMILIES:
        shape = shapes.SHAPES[family]
        rate, how = rate_of(family, found)
        cost = shapes.cost(family, network, pixels, _RANK, gradient_checkpointing=True)
        works = (
            ("pictures encoded once", _encoding(shape.channels, pixels), 1.0),
            ("SFT, an epoch", cost.policy, TRAINED),
            ("CPO-S, an epoch", 2 * cost.frozen + cost.policy, TRAINED),
        )
        for work, flops, share in works:
            hours = [
                hours_of(flops, share * count, devices, rate)
                for count in PAINTINGS
                for devices in DEVICES
            ]
            cells = [quantity(value, "h") for value in hours]
            yield [f"{shape.name}: {work}{how}", quantity(flops / 1e12, ""), *cells]


def rate_of(family: str, found: Measured | None) -> tuple[float, str]:
    """Return the FLOP/s of a device, and where they come from if they were measured."""
    if found is not None:
        for step in found.steps:
            if step.family == family and step.tflops is not None:
                return step.tflops * 1e12, f" (at the rate measured on {found.device})"
    return PEAK * SHARE, ""


def hours_of(flops: float, images: float, devices: int, rate: float) -> float:
    """Return hours at a device's ``rate``, as if no device waited for another."""
    return flops * images / (rate * devices) / 3600


def _encoding(channels: int, pixels: int) -> float:
    """FLOPs of the published codec's encoder on one picture."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        codec = AutoencoderKL(
            block_out_channels=_WIDTHS,
            down_block_types=["DownEncoderBlock2D"] * len(_WIDTHS),
            up_block_types=["UpDecoderBlock2D"] * len(_WIDTHS),
            layers_per_block=2,
            latent_channels=channels,
        )
        picture = torch.zeros(1, 3, pixels, pixels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        codec.encode(picture)
    return float(counter.get_total_flops())
