"""Optimizers that the settings name, and their state as tensors for checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from atelier.errors import ParamsError

Name = Literal["adamw", "adamw-fused", "adamw-8bit", "adafactor", "muon"]

_BETAS = (0.9, 0.98)
_NUMBER = "#"  # ends the name of a state that is a plain number
_SMALL = 2**16  # numbers; what a larger weight takes is its arithmetic
# Of float32 in 64 bytes, where torch lets a tensor's memory begin: elsewhere a product of
# matrices may be summed in another order.
_ALIGNED = 16


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
    if name == "adamw" and given[0].device.type == "cpu":
        return JoinedAdamW(given, weight_decay)
    if name in ("adamw", "adamw-fused"):  # foreach is torch's own choice on CUDA
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


class JoinedAdamW(torch.optim.Optimizer):
    """torch's AdamW on a CPU, with small weights side by side in one piece of memory.

    AdamW treats each number by itself, so that all small weights together give what each gives
    alone, to the last bit. But each of its dozen operations is one call for all of them, where
    the calls for a LoRA's hundreds of weights took longer than their arithmetic.

    At the first step the weights move there: ``parameter.data`` and the moments are views.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], weight_decay: float) -> None:
        super().__init__(parameters, {"lr": 0.0, "weight_decay": weight_decay})
        self._learned: list[nn.Parameter] = []
        self._pieces: list[_Piece] = []
        self._adamw: torch.optim.Optimizer | None = None

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step at the rate of the parameter group."""
        del closure  # as the training loop calls it, without one
        learned = [p for p in self.param_groups[0]["params"] if p.grad is not None]
        if not learned:
            return
        if self._adamw is None or not self._in_place(learned):
            self._adamw = self._join(learned)
        for piece in self._pieces:
            found = [weight.grad for weight in piece.weights if weight.grad is not None]
            torch._foreach_copy_(piece.gradients, found)
        self._adamw.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        self._adamw.step()

    def join_again(self) -> None:
        """Before the next step; to be called when moments were exchanged."""
        self._adamw = None

    def _in_place(self, learned: Sequence[nn.Parameter]) -> bool:
        """Whether the same weights learn as before, and lie where they were put."""
        return list(map(id, learned)) == list(map(id, self._learned)) and all(
            [weight.data_ptr() for weight in piece.weights] == piece.places
            for piece in self._pieces
        )

    def _join(self, learned: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Put small weights that took as many steps side by side; return what steps for all."""
        for piece in self._pieces:
            del self.state[piece.joined]
        every: list[nn.Parameter] = []
        by_steps: dict[float, list[nn.Parameter]] = {}
        for weight in learned:
            if _is_small(weight):
                taken = float(self.state[weight].get("step", 0))
                by_steps.setdefault(taken, []).append(weight)
            else:
                every.append(weight)
        self._learned = learned
        self._pieces = [self._piece(weights, taken) for taken, weights in by_steps.items()]
        every += [piece.joined for piece in self._pieces]
        adamw = torch.optim.AdamW(
            every,
            lr=0.0,
            betas=_BETAS,
            weight_decay=self.defaults["weight_decay"],
            foreach=True,
        )
        adamw.state = self.state
        return adamw

    def _piece(self, weights: Sequence[nn.Parameter], taken: float) -> "_Piece":
        room = [-(-weight.numel() // _ALIGNED) * _ALIGNED for weight in weights]
        joined = nn.Parameter(torch.zeros(sum(room)))
        joined.grad = torch.zeros_like(joined)
        kept = {key: torch.zeros_like(joined.data) for key in ("exp_avg", "exp_avg_sq")}
        steps = torch.tensor(taken)
        views = {
            key: [
                part[: weight.numel()].view(weight.shape)
                for part, weight in zip(torch.split(whole, room), weights, strict=True)
            ]
            for key, whole in {"data": joined.data, "grad": joined.grad, **kept}.items()
        }
        for at, weight in enumerate(weights):
            state = self.state[weight]
            weight.data = views["data"][at].copy_(weight.data)
            for key in kept:
                view = views[key][at]
                state[key] = view.copy_(state[key]) if key in state else view
            state["step"] = steps
        self.state[joined] = {"step": steps, **kept}
        places = [weight.data_ptr() for weight in weights]
        return _Piece(joined, list(weights), places, views["grad"])


def _is_small(weight: nn.Parameter) -> bool:
    plain = weight.dtype == torch.float32 and weight.is_contiguous()
    return plain and weight.numel() < _SMALL


@dataclass(frozen=True)
class _Piece:
    """Small weights side by side in the memory of one.

    Attributes:
        joined: What AdamW takes for a weight; its own memory is that of all.
        weights: Those that lie in it.
        places: Where each of them begins.
        gradients: Views of the gradient of ``joined``, one for each.
    """

    joined: nn.Parameter
    weights: list[nn.Parameter]
    places: list[int]
    gradients: list[Tensor]


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
        key if isinstance(value, Tensor) else f"{key}{_NUMBER}": _own(torch.as_tensor(value))
        for key, value in optimizer.state[parameter].items()
    }


def _own(value: Tensor) -> Tensor:
    """Weights that take the same steps may share their count; a file takes no shared ones."""
    return value if value.dim() else value.clone()


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
    if isinstance(optimizer, JoinedAdamW):
        optimizer.join_again()
