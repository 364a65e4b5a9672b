"""Parameter counts of a profile's networks, on the meta device, without loading weights."""

from dataclasses import dataclass

import torch
from torch import nn

from atelier.config.model import ModelParams
from atelier.config.training import Learns
from atelier.models import adapters, loading

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
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
    whole = _BYTES[params.dtype]
    linear = whole if params.quantise is None else _QUANTISED[params.quantise]
    return counted.linear * linear + (counted.frozen - counted.linear) * whole


def trained_bytes(weights: int, optimizer: str, *, averaged: bool) -> float:
    """Return what weights that learn occupy: float32, gradient, optimizer, their average."""
    return weights * (4 + 4 + _OPTIMIZER[optimizer] + 4 * averaged)
