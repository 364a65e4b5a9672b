"""Latents and text conditions: encoded once, cached, read back on demand.

The key of an entry is its source (a picture's hash, or a text). The folder is named by the
model's identity and, for pictures, their size.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from atelier.images import Framed, Pixels, Size
from atelier.models.sampling import to_pixels
from atelier.reporting import Report
from atelier.training import cache
from atelier.training.cache import Cache, Column

if TYPE_CHECKING:
    from atelier.models.denoiser import Condition, Denoiser

_LATEST = 32  # prompts whose conditions stay in memory where they are encoded on demand
_Frame = list[int]  # original height and width, the crop's top and left
_Read = tuple[Pixels, _Frame]
_Batch = tuple[Tensor, list[_Frame]]  # pixels in [-1, 1], [B, 3, H, W]


@dataclass(frozen=True)
class Encoded:
    """Pictures as latents, in the order asked for.

    Attributes:
        latents: float32 ``[N, C, H, W]``; only rows of one size can be read together.
        frames: Original height and width and the crop's top and left, in pixels,
            ``[N, 4]``.
    """

    latents: Column
    frames: Column


def latents(
    painter: "Denoiser",
    images: Sequence[str],
    sizes: Sequence[Size],
    framed: Callable[[str, Size], Framed],
    *,
    folder: Path,
    batch_images: int,
    report: Report,
) -> Encoded:
    """Encode pictures that the cache does not hold.

    Args:
        painter: Whose codec is used.
        images: Their hashes.
        sizes: Height and width at which each is encoded, in pixels; part of the key.
        framed: Reads a picture by hash at a size; called in a thread.
        folder: The cache.
        batch_images: Pictures encoded at once.
        report: Receives how many of the missing ones are done.
    """
    of_size: dict[Size, Cache] = {}
    done = 0
    for size in dict.fromkeys(sizes):
        kind = f"latents-{painter.identity}-{size[0]}x{size[1]}"
        keys = [image for image, own in zip(images, sizes, strict=True) if own == size]

        def encode(missing: Sequence[str], ahead: "_Ahead") -> dict[str, Tensor]:
            pixels, frames = ahead.take(missing)
            return {
                "latents": painter.encode_images(pixels),
                "frame": torch.tensor(frames, dtype=torch.float32),
            }

        def read(image: str, size: Size = size) -> _Read:
            picture = framed(image, size)
            return picture.pixels, [*picture.original, *picture.corner]

        with _Ahead(read, folder / kind, keys, batch_images) as ahead:
            of_size[size] = cache.filled(
                folder / kind,
                keys,
                partial(encode, ahead=ahead),
                batch=batch_images,
                report=_after(done, report),
            )
        done += len(set(keys))
    entries = [(of_size[size], image) for image, size in zip(images, sizes, strict=True)]
    return Encoded(Column(entries, "latents"), Column(entries, "frame"))


class _Ahead:
    """Reads and stacks the next pictures in a thread while the encoder is at those before them.

    Args:
        read: Reads one picture.
        folder: The cache; what it holds when the first is asked for is not read ahead.
        order: Order in which they will be read, except those that another process encodes.
        count: How many are read ahead.
    """

    def __init__(
        self, read: Callable[[str], _Read], folder: Path, order: Sequence[str], count: int
    ) -> None:
        self._read, self._folder, self._keys, self._count = read, folder, order, count
        self._reading: dict[str, Future[_Read]] = {}
        self._stacking: Future[_Batch] | None = None  # of all that are being read
        self._pool = ThreadPoolExecutor(1)  # reading silences warnings, which no two can

    def __enter__(self) -> "_Ahead":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, images: Sequence[str]) -> "_Batch":
        """Return these pictures, and begin with those that follow them."""
        foreseen = self._stacking is not None and list(images) == list(self._reading)
        wanted = [self._begun(image) for image in images]
        stacking = self._stacking if foreseen else self._pool.submit(_stacked, wanted)
        assert stacking is not None
        start = self._places.get(images[-1], len(self._order)) + 1
        following = self._order[start : start + self._count]
        self._reading = {image: self._begun(image) for image in following}
        self._stacking = self._pool.submit(_stacked, [*self._reading.values()])
        return stacking.result()

    @cached_property
    def _order(self) -> list[str]:
        held = Cache(self._folder)
        return [image for image in dict.fromkeys(self._keys) if image not in held]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {image: place for place, image in enumerate(self._order)}

    def _begun(self, image: str) -> Future[_Read]:
        return self._reading.get(image) or self._pool.submit(self._read, image)


def _stacked(read: Sequence[Future[_Read]]) -> _Batch:
    """Pictures that this thread has read, as one batch whose channels lie last in memory."""
    pictures, frames = zip(*(one.result() for one in read), strict=True)
    return to_pixels(np.stack(pictures)), list(frames)


def texts(
    painter: "Denoiser",
    prompts: Sequence[str],
    *,
    folder: Path,
    batch_texts: int,
    report: Report,
) -> Mapping[str, Column]:
    """Return the conditions of ``prompts`` in order; each distinct one is encoded once."""
    keys = [_digest(prompt) for prompt in prompts]
    prompt_of = dict(zip(keys, prompts, strict=True))

    def encode(missing: Sequence[str]) -> dict[str, Tensor]:
        return painter.encode_texts([prompt_of[key] for key in missing])

    held = cache.filled(
        folder / f"texts-{painter.identity}", keys, encode, batch=batch_texts, report=report
    )
    entries = [(held, key) for key in keys]
    return {name: Column(entries, name) for name in held.names(keys[0])}


class OnDemand(Mapping[str, "Asked"]):
    """Conditions of prompts, encoded when a batch asks for them; nothing is stored.

    Each prompt is encoded by itself, so that its condition does not depend on the batch, nor a
    resumed run on where it was interrupted. The latest are kept: a step asks for each of a
    condition's tensors.
    """

    def __init__(self, painter: "Denoiser", prompts: Sequence[str]) -> None:
        self._painter, self._prompts = painter, prompts
        self._condition = functools.lru_cache(maxsize=_LATEST)(self._encoded)
        self._names = sorted(self._condition(0))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> "Asked":
        return Asked(self._condition, name, self._prompts)

    def _encoded(self, row: int) -> "Condition":
        kind = next(self._painter.network.parameters()).device.type
        with torch.autocast(kind, enabled=False):  # a step's would reach the encoders
            return self._painter.encode_texts([self._prompts[row]])


class Asked:
    """One tensor of each prompt's condition; rows are encoded when asked for."""

    def __init__(
        self, condition: Callable[[int], "Condition"], name: str, prompts: Sequence[str]
    ) -> None:
        self._condition, self._name, self._prompts = condition, name, prompts

    def __len__(self) -> int:
        return len(self._prompts)

    def keys(self, rows: Tensor) -> list[str]:
        """Return what the given rows, ``[B]`` indices, are made from, as cached ones do."""
        return [_digest(self._prompts[row]) for row in rows.tolist()]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the given rows, ``[B]`` indices, float32 ``[B, ...]``."""
        return torch.cat([self._condition(row)[self._name] for row in rows.tolist()])


def _after(before: int, report: Report) -> Report:
    return lambda done, values: report(before + done, values)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
