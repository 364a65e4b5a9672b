"""Hardware of this machine and usage of this process, in bytes."""

import os
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Room:
    """What there is for a training.

    Attributes:
        device: In words.
        memory: Of the device that trains.
        free_memory: Of it, not in use now.
        disk: Free where artifacts lie.
    """

    device: str
    memory: int
    free_memory: int
    disk: int


def room(folder: Path) -> Room:
    """Return what there is, with the disk that holds ``folder`` or would."""
    import torch

    while not folder.exists():
        folder = folder.absolute().parent
    disk = shutil.disk_usage(folder).free
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Room(torch.cuda.get_device_name(), total, free, disk)
    memory = psutil.virtual_memory()
    threads = torch.get_num_threads()
    return Room(f"CPU, {threads} threads", memory.total, memory.available, disk)


def used() -> int:
    """Return the most memory that this process had on its device since it began."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # Linux counts in kilobytes


def speaks() -> bool:
    """Say whether this process is the one of those trained together that shows progress."""
    return os.environ.get("RANK", "0") == "0"
