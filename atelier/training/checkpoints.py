"""Checkpoints of a training: written atomically, verified by checksum when read.

A file is named ``step-00000100-<digest>.safetensors``; the digest is of its bytes. A damaged
newest one is set aside and the one before it is taken.

Each records the kernels that computed it. A run may resume with other kernels, but its result
then differs in the last bits from that of an uninterrupted run.
"""

import hashlib
import json
import platform
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from atelier import atomic

_NAME = re.compile(r"^step-(\d{8})-([0-9a-f]{16})\.safetensors$")
_KERNELS = "kernels"  # in the file's metadata


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], *, kept: int) -> None:
    """Write the state after ``step`` steps; of all there are, the last ``kept`` stay.

    Raises:
        DiskError: It cannot be written; the checkpoints before it are untouched.
    """
    content = safetensors.torch.save(
        {k: t.detach().contiguous() for k, t in tensors.items()}, {_KERNELS: kernels()}
    )
    atomic.write(folder / f"step-{step:08d}-{_digest(content)}.safetensors", content)
    for path in _newest_first(folder)[kept:]:
        path.unlink(missing_ok=True)


def newest(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """Return step and state of the newest whole checkpoint, or None.

    A damaged one is renamed to ``*.damaged`` and kept. One that was computed with other kernels
    is used, with a warning.
    """
    for path in _newest_first(folder):
        content = path.read_bytes()
        step, digest = _parts(path)
        if _digest(content) == digest:
            _warn_of_other_kernels(path, content)
            # Clones are aligned in memory; the loader's views give results off by ~1e-6.
            return step, {k: t.clone() for k, t in safetensors.torch.load(content).items()}
        path.replace(path.with_suffix(".damaged"))
        warnings.warn(
            f"{path} is damaged and was set aside as *.damaged; training resumes from the "
            "checkpoint before it, or from the start if there is none",
            stacklevel=2,
        )
    return None


def kernels() -> str:
    """Return in words what decides in which order sums are taken here."""
    if torch.cuda.is_available():
        return f"torch {torch.__version__} on {torch.cuda.get_device_name()}"
    return (
        f"torch {torch.__version__} on {_processor()} "
        f"({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} thread(s)"
    )


def _processor() -> str:
    """Name of the processor; Python knows it on Linux from a file alone."""
    names = Path("/proc/cpuinfo")
    text = names.read_text(encoding="utf-8") if names.exists() else ""
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _warn_of_other_kernels(path: Path, content: bytes) -> None:
    length = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    here = kernels()
    if told.get(_KERNELS, here) != here:
        warnings.warn(
            f"{path} was computed with {told[_KERNELS]}, this machine has {here}: training "
            "resumes, but its last digits will differ from those of an uninterrupted run",
            stacklevel=3,
        )


def _newest_first(folder: Path) -> list[Path]:
    found = (path for path in folder.glob("step-*.safetensors") if _NAME.match(path.name))
    return sorted(found, key=lambda path: _parts(path)[0], reverse=True)


def _parts(path: Path) -> tuple[int, str]:
    match = _NAME.match(path.name)
    assert match is not None
    return int(match[1]), match[2]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
