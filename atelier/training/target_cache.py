"""Cache of a teacher's targets on disk: trainings with one schedule compute them once.

Images, noise and times of a step are drawn from (seed, step). So objectives that differ in
their loss alone ask a frozen teacher the same, and a training that goes on after a crash asks
what it asked before. What is read is to the last bit what would be computed: the folder is
named by all that decides the passes, the kernels of this machine included, and an entry by the
step and the images and prompts that it reads.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atelier.models.denoiser import sent
from atelier.training.cache import Cache, Column
from atelier.training.latents import Asked

Targets = tuple[Tensor, Tensor]  # the winner's and the loser's, float32 [B, ...]
_NAMES = ("win", "lose")


class TargetCache:
    """One folder of targets; a process sees what was there when it began, and its own."""

    def __init__(self, folder: Path) -> None:
        self._cache = Cache(folder)

    def of(self, asked: Any, compute: Callable[[], Targets], device: torch.device) -> Targets:
        """Return the targets of a pass, from the disk if it was made before.

        Args:
            asked: What decides the pass within the folder, as JSON can say it.
            compute: Makes the pass.
            device: Where the targets are wanted.

        Raises:
            ArtifactError: The disk gave other bytes than were written; they are removed.
            DiskError: They cannot be written.
        """
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        if key not in self._cache:
            win, lose = compute()
            found = {name: one.detach() for name, one in zip(_NAMES, (win, lose), strict=True)}
            self._cache.write({key: found})
            return win, lose
        win, lose = (sent(self._cache.read(key, name), device) for name in _NAMES)
        return win, lose


def names(rows: Any, chosen: Tensor) -> list[str]:
    """Return what the chosen rows of a column are made from.

    Raises:
        ValueError: They lie in memory, and nothing says what they are.
    """
    if isinstance(rows, Column | Asked):
        return rows.keys(chosen)
    raise ValueError("targets cannot be kept of pictures or prompts that have no names")
