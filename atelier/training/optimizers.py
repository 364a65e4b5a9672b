"""Optimizers that the settings name, and their state as tensors for checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from atelier.errors import ParamsError

Name = Literal["adamw", "adamw-fused", "adamw-8bit", "adafactor"]

_BETAS = (0.9, 0.98)
_NUMBER = "#"  # ends the name of a state that is a plain number


def build(
    name: Name, parameters: Sequence[nn.Parameter], weight_decay: float
) -> torch.optim.Optimizer:
    """Return the optimizer called ``name``; its learning rate is set before each step.

    * ``adamw``: two float32 moments a weight (Loshchilov & Hutter 2019, arXiv:1711.05101).
    * ``adamw-fused``: the same in one kernel for all weights, whose sums round otherwise.
    * ``adamw-8bit``: the same with moments in 8 bits, by bitsandbytes; CUDA only.
    * ``adafactor``: one moment, kept as its rows' and columns' means (Shazeer & Stern 2018,
      arXiv:1804.04235); its steps are relative to the size of a weight, so its learning rate
      is no AdamW's.

    Raises:
        ParamsError: It needs a package or a device that is not here.
    """
    given = list(parameters)
    if name in ("adamw", "adamw-fused"):
        # None: torch's own choice, which is a loop on a CPU and foreach on CUDA.
        fused = True if name == "adamw-fused" else None
        return torch.optim.AdamW(
            given, lr=0.0, betas=_BETAS, weight_decay=weight_decay, fused=fused
        )
    if name == "adafactor":
        return torch.optim.Adafactor(given, lr=0.0, weight_decay=weight_decay)
    if given[0].device.type != "cuda":
        raise ParamsError(
            "training.optimizer 'adamw-8bit' needs a CUDA device, and this network is on the "
            f"{given[0].device.type}; use 'adamw', or 'adafactor' to save memory"
        )
    try:
        import bitsandbytes
    except ImportError:
        raise ParamsError(
            "training.optimizer 'adamw-8bit' needs the package bitsandbytes: "
            "`pip install 'atelier[cuda]'`; or use 'adamw'"
        ) from None
    eight: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        given, lr=0.0, betas=_BETAS, weight_decay=weight_decay
    )
    return eight


def state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Return what the optimizer remembers of a parameter."""
    return {
        key if isinstance(value, Tensor) else f"{key}{_NUMBER}": torch.as_tensor(value)
        for key, value in optimizer.state[parameter].items()
    }


def restore(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, kept: Mapping[str, Tensor]
) -> None:
    """Make the optimizer remember what ``state`` gave."""
    # Steps are counted on the CPU, but for the fused kernel.
    counted = parameter.device if optimizer.defaults.get("fused") else "cpu"
    optimizer.state[parameter] = {
        key.removesuffix(_NUMBER): tensor.item()
        if key.endswith(_NUMBER)
        else tensor.to(parameter.device if tensor.dim() else counted)
        for key, tensor in kept.items()
    }
