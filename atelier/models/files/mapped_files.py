"""Mapped weight files: give back the memory of what was copied out of them (Linux).

safetensors maps a file into memory, and each tensor is a view of it. Once a tensor is copied,
its pages are not needed, but stay resident until the last tensor of the file is gone: a model
took almost twice its size while it was loaded.
"""

import ctypes
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

_DONTNEED = 4  # MADV_DONTNEED: pages of a file are read again if they are touched after all
Ranges = Sequence[tuple[int, int]]


def ranges() -> Ranges:
    """Return first and last address of each weight file that is mapped now."""
    if sys.platform != "linux":
        return []
    found = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if line.endswith(".safetensors"):
            first, _, last = line.split(" ", 1)[0].partition("-")
            found.append((int(first, 16), int(last, 16)))
    return found


def let_go(tensor: Tensor, mapped: Ranges) -> bool:
    """Give back the pages of a tensor if it lies in a mapped file; say whether it does.

    What lies in other memory is left alone: its pages would become zeros.
    """
    page = mmap.PAGESIZE
    first = -(-tensor.data_ptr() // page) * page
    last = (tensor.data_ptr() + tensor.nbytes) // page * page
    if last <= first or not any(low <= first and last <= high for low, high in mapped):
        return False
    size = ctypes.c_size_t(last - first)
    return bool(ctypes.CDLL(None).madvise(ctypes.c_void_p(first), size, _DONTNEED) == 0)
