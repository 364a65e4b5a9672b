"""What is encoded once: latents and text embeddings, cached by content.

A cache is a folder of shards; each holds some entries and is named by a digest of its bytes,
so that several processes may add to it and a damaged shard is noticed and made again. A key is
what the entry was made from (image hash or text) together with the painter's identity.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor

from atelier import atomic
from atelier.reporting import Report

if TYPE_CHECKING:
    from atelier.models import Condition, Denoiser

_SHARD_ENTRIES = 512


def latents(
    painter: "Denoiser",
    images: Sequence[str],
    pixels_of: Callable[[Sequence[str]], Tensor],
    *,
    size: int,
    folder: Path,
    batch_images: int,
    report: Report,
) -> Tensor:
    """Return the latents of ``images`` in order, float32 ``[N, C, H, W]``.

    Args:
        painter: Whose codec encodes what the cache does not hold.
        images: Their hashes.
        pixels_of: Reads pictures by hash: ``[B, 3, size, size]`` in [-1, 1].
        size: Side in pixels; part of the key.
        folder: The cache.
        batch_images: Pictures encoded at once.
        report: Told how many of the missing ones are done.
    """
    kind = f"latents-{painter.identity}-{size}"

    def encode(missing: Sequence[str]) -> dict[str, Tensor]:
        return {"latents": painter.encode_images(pixels_of(missing))}

    return _filled(folder / kind, images, encode, batch_images, report)["latents"]


def texts(
    painter: "Denoiser",
    prompts: Sequence[str],
    *,
    folder: Path,
    batch_texts: int,
    report: Report,
) -> "Condition":
    """Return the conditions of ``prompts`` in order; each distinct one is encoded once."""
    keys = {_digest(prompt.encode()): prompt for prompt in prompts}

    def encode(missing: Sequence[str]) -> dict[str, Tensor]:
        return painter.encode_texts([keys[key] for key in missing])

    kind = f"texts-{painter.identity}"
    return _filled(folder / kind, list(keys), encode, batch_texts, report)


def _filled(
    folder: Path,
    keys: Sequence[str],
    encode: Callable[[Sequence[str]], dict[str, Tensor]],
    batch: int,
    report: Report,
) -> dict[str, Tensor]:
    held = _read(folder, set(keys))
    missing = [key for key in dict.fromkeys(keys) if key not in held]
    fresh: dict[str, dict[str, Tensor]] = {}
    for start in range(0, len(missing), batch):
        rows = missing[start : start + batch]
        encoded = encode(rows)
        for row, key in enumerate(rows):
            fresh[key] = {name: tensor[row].cpu() for name, tensor in encoded.items()}
        last = start + batch >= len(missing)
        if len(fresh) >= _SHARD_ENTRIES or last:
            _write(folder, fresh)
            held |= fresh
            fresh = {}
        report(min(start + batch, len(missing)), {})
    names = held[keys[0]].keys()
    return {name: torch.stack([held[key][name] for key in keys]) for name in names}


def _write(folder: Path, entries: dict[str, dict[str, Tensor]]) -> None:
    flat = {
        f"{key} {name}": tensor.contiguous()
        for key, tensors in entries.items()
        for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(flat)
    atomic.write(folder / f"{_digest(content)}.safetensors", content)


def _read(folder: Path, wanted: set[str]) -> dict[str, dict[str, Tensor]]:
    held: dict[str, dict[str, Tensor]] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        content = shard.read_bytes()
        if _digest(content) != shard.stem:
            shard.unlink()  # damaged; its entries are encoded again
            continue
        for full, tensor in safetensors.torch.load(content).items():
            key, name = full.split(" ", 1)
            if key in wanted:
                held.setdefault(key, {})[name] = tensor.clone()
    return held


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
