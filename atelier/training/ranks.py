"""Ranks: several processes that train one network, their rows of a batch, all-reduce.

Each process holds the whole network, or all of its adapters and a share of its frozen base
(``models/sharding.py``), and takes some rows of the global batch; gradients are summed once a
step, in flat buffers. DistributedDataParallel computes the same. Its wrapper is not used
because it tracks every pass through its module, and our steps make several passes through one
network, in different states, of which only the last has a gradient.
"""

import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from atelier.errors import ParamsError

_BUFFER = 64 * 2**20  # entries that are summed at once; bounds the copy of large gradients
_PATIENCE = datetime.timedelta(days=2)  # the others wait while the first fills the caches
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
        sharded: Whether each holds a share of the frozen base only. They must then make as
            many passes as each other.
    """

    rank: int
    count: int
    sharded: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def parts(self, images: int, at_once: int | None) -> list[slice]:
        """Return this process's rows of a batch of ``images``, in parts of at most ``at_once``.

        Raises:
            ParamsError: There are more processes than images; or the base is sharded and
                they cannot take equally many.
        """
        if images < self.count:
            raise ParamsError(
                f"batch_images is {images}, fewer than the {self.count} processes that share "
                "them; raise it, or start fewer processes"
            )
        if self.sharded and images % self.count:
            raise ParamsError(
                f"batch_images is {images}, not a multiple of the {self.count} processes that "
                "share the base: each pass waits for all, so their numbers of passes must be "
                "equal. Change one of the two, or do not shard"
            )
        first, last = (images * rank // self.count for rank in (self.rank, self.rank + 1))
        size = at_once or images
        return [slice(row, min(row + size, last)) for row in range(first, last, size)]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.count == 1:
            return
        for group in _groups(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            torch.distributed.all_reduce(flat)
            first = 0
            for tensor in group:
                summed = flat[first : first + tensor.numel()]
                tensor.copy_(summed.view_as(tensor))
                first += tensor.numel()

    def same(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the first process."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, src=0)

    def gather(self, value: _Value) -> list[_Value]:
        """Return the value of each process, in their order; all of them wait for it."""
        if self.count == 1:
            return [value]
        values: list[_Value] = [value] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def in_turn(self) -> Iterator[None]:
        """Iterate once: the first process at once, the others when it is through."""
        if not self.first:
            self.gather(None)
        yield
        if self.first:
            self.gather(None)


ALONE = Ranks(rank=0, count=1)


def started() -> bool:
    """Say whether accelerate's or torch's launcher started this process among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join() -> Ranks:
    """Join the processes that the launcher started; alone if there are no others.

    They shard the frozen base if accelerate's launcher was given ``--use_fsdp``.

    Raises:
        ParamsError: They were asked for a kind of sharding that is not here.
    """
    if not started():
        return ALONE
    for variable, flag in (
        ("ACCELERATE_USE_DEEPSPEED", "--use_deepspeed"),
        ("FSDP_OFFLOAD_PARAMS", "--fsdp_offload_params"),
    ):
        if _told(variable):
            raise ParamsError(
                f"accelerate's launcher was given {flag} (the environment variable {variable} "
                "is true), which is not supported. Launch with --multi_gpu, or with --use_fsdp "
                "to share the frozen base over the processes (docs/performance.md)"
            )
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    sharded = _told("ACCELERATE_USE_FSDP")
    return Ranks(state.process_index, state.num_processes, sharded)


def _told(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type side by side, up to a buffer's size together."""
    group: list[Tensor] = []
    for tensor in tensors:
        size = sum(member.numel() for member in group)
        if group and (tensor.dtype != group[0].dtype or size + tensor.numel() > _BUFFER):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group
