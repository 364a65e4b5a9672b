"""A mode in which everything that is asked for in float32 is made in float64.

The library, diffusers and transformers name float32 in many places: embeddings of times,
norms, what an encoder hands on. ``Double`` puts float64 there, and refuses a float32 that
comes up all the same, so that "float64 from end to end" is checked and not only meant.

Random numbers are those of float32, worked out further: from the same stream of 24-bit
uniform numbers, by the same formula, in double. So a toy model has the weights that it always
had, to about 1e-7, and other processors get the same ones to about 1e-15.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWS = {torch.rand, torch.randn}


@contextlib.contextmanager
def double() -> Iterator[None]:
    """Inside, float32 is float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    # Put into the class, since torch.nn.init's functions are one call to a mode.
    Tensor.uniform_, Tensor.normal_ = _fill_uniform, _fill_normal
    try:
        with _Double():
            yield
    finally:
        del Tensor.uniform_, Tensor.normal_
        torch.set_default_dtype(before)


class _Double(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
        del types
        kwargs = kwargs or {}
        if func in _DRAWS and kwargs.get("dtype") in (None, torch.float32):
            shape = kwargs.get("size", args[0] if isinstance(args[0], tuple | list) else args)
            source = kwargs.get("generator")
            return _uniform(shape, source) if func is torch.rand else _normal(shape, source)
        if func is Tensor.float:
            func = Tensor.double
        found = func(*_wide(args), **{key: _wide(value) for key, value in kwargs.items()})
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, Tensor) and tensor.dtype in (torch.float32, torch.bfloat16):
                raise AssertionError(f"{func} answers in {tensor.dtype}")
        return found


_WIDER = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def _wide(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_wide, value)) if type(value) in (tuple, list) else value
    return _WIDER.get(value, value) if isinstance(value, torch.dtype) else value


def _fill_uniform(
    tensor: Tensor, low: float = 0, high: float = 1, *, generator: Any = None
) -> Tensor:
    with torch.no_grad():
        return tensor.copy_(low + (high - low) * _uniform(tensor.shape, generator))


def _fill_normal(
    tensor: Tensor, mean: float = 0, std: float = 1, *, generator: Any = None
) -> Tensor:
    with torch.no_grad():
        return tensor.copy_(mean + std * _normal(tensor.shape, generator))


def _uniform(shape: Any, source: torch.Generator | None) -> Tensor:
    """Multiples of 2^-24, which both formats hold exactly."""
    with torch._C.DisableTorchFunction():
        return torch.rand(tuple(shape), generator=source, dtype=torch.float32).double()


def _normal(shape: Any, source: torch.Generator | None) -> Tensor:
    """Box and Muller's formula on blocks of 16, as torch fills float32 tensors."""
    count = math.prod(shape)
    if count < 16:  # torch works these out in double itself
        with torch._C.DisableTorchFunction():
            return torch.randn(tuple(shape), generator=source, dtype=torch.float64)
    drawn = _uniform((count,), source)
    whole = count // 16 * 16
    found = torch.empty(count)
    found[:whole] = _box_muller(drawn[:whole])
    if whole < count:  # the last 16 are drawn once more
        found[-16:] = _box_muller(_uniform((16,), source))
    return found.reshape(tuple(shape))


def _box_muller(uniform: Tensor) -> Tensor:
    first, second = uniform.reshape(-1, 2, 8).unbind(1)
    radius, angle = (-2 * torch.log1p(-first)).sqrt(), 2 * math.pi * second
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1).flatten()
