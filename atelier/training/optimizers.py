"""Optimizers that the settings name, and their state as tensors for checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from atelier.errors import ParamsError

Name = Literal["adamw", "adamw-fused", "adamw-8bit", "adafactor", "muon"]

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
    * ``muon``: one moment, made orthogonal, for matrices and convolutions; AdamW for the rest
      (see ``Muon``).

    Raises:
        ParamsError: It needs a package or a device that is not here.
    """
    given = list(parameters)
    if name in ("adamw", "adamw-fused"):
        # foreach is torch's own choice on CUDA. On a CPU it would loop over the weights, which
        # gives the same to the last bit and takes longer.
        kernel = {"fused": True} if name == "adamw-fused" else {"foreach": True}
        return torch.optim.AdamW(
            given, lr=0.0, betas=_BETAS, weight_decay=weight_decay, **kernel
        )
    if name == "adafactor":
        return torch.optim.Adafactor(given, lr=0.0, weight_decay=weight_decay)
    if name == "muon":
        return Muon(given, weight_decay)
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


class Muon(torch.optim.Optimizer):
    """Muon for weights of two or more dimensions, AdamW for the others, with one rate.

    The momentum of a matrix is replaced by the nearest orthogonal one, by five Newton-Schulz
    iterations in bfloat16 (Jordan et al. 2024), times ``0.2 sqrt(max(rows, columns))``, so that
    its size is that of AdamW's step and AdamW's learning rates can stay (Liu et al. 2025,
    arXiv:2502.16982). The kernel of a convolution counts as a matrix: output channels by the
    rest.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})
        self._matrices = {p: nn.Parameter(_matrix(p.data)) for p in parameters if p.dim() > 1}
        rest = [p for p in parameters if p.dim() <= 1]
        self._muon = self._adamw = None
        if self._matrices:
            self._muon = torch.optim.Muon(
                list(self._matrices.values()),
                lr=0.0,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        if rest:
            self._adamw = torch.optim.AdamW(
                rest, lr=0.0, betas=_BETAS, weight_decay=weight_decay
            )

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step at the rate of the parameter group."""
        del closure  # as the training loop calls it, without one
        for part in filter(None, (self._muon, self._adamw)):
            part.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        if self._adamw is not None:
            self._adamw.state = self.state
            self._adamw.step()
        if self._muon is not None:
            for weight, matrix in self._matrices.items():
                matrix.data = _matrix(weight.data)
                matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
                self._muon.state[matrix] = self.state[weight]
            self._muon.step()  # type: ignore[no-untyped-call]
            for matrix in self._matrices.values():
                matrix.grad = None


def _matrix(weight: Tensor) -> Tensor:
    """Return the same memory as a matrix; an error where it lies in another order."""
    return weight.view(len(weight), -1)


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
