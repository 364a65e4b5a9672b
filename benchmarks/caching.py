"""The cache of latents: how busy it keeps the encoder, how fast it reads and resumes."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atelier import images
from atelier.images import Framed
from atelier.reporting import silent
from atelier.training import cache, latents
from benchmarks import measures
from benchmarks.lines import Goal, Line, Size, by_turns, figure_ratio, taking

SECTION = "cache"
_ROOT = Path(__file__).parents[1]
_FILES: Mapping[Size, int] = {"full": 192, "tiny": 8}
_LATENTS: Mapping[Size, int] = {"full": 1024, "tiny": 8}
_ENTRIES: Mapping[Size, int] = {"full": 10_000, "tiny": 100}
_ROUNDS: Mapping[Size, int] = {"full": 5, "tiny": 1}
_ENCODING = 0.03  # seconds a picture: about what a codec needs at 1024 px on a large GPU
_BATCH = 16
_CHUNK = 1 << 20


def lines(size: Size) -> Iterator[Line]:
    """Measure building, reading and resuming."""
    yield _building(size)
    yield from _reading(size)
    yield _resuming(size)


def _building(size: Size) -> Line:
    """An encoder that takes time but no CPU, as a GPU's, on JPEG files; three times."""
    shares = [_busy(size) for _ in range(3)]
    busy = float(np.median(shares))
    return Line(
        SECTION, f"encoder's busy share while {_FILES[size]} JPEG files of 512 px are encoded",
        busy, "%", "always", 1.0, busy, Goal("ratio", "≥", 0.95),
        note=f"a stand-in that takes {_ENCODING * 1000:g} ms a picture and no CPU",
    )  # fmt: skip


def _busy(size: Size) -> float:
    """Share of the time in which the encoder is at work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = measures.pictures(8)
        files = {}
        for number in range(_FILES[size]):
            file = folder / f"{number}.jpg"
            Image.fromarray(np.roll(made[number % 8], number, 0)).save(file, quality=90)
            files[images.sha256(file)] = file
        busy = 0.0

        def encode_images(pixels: Tensor) -> Tensor:
            nonlocal busy
            start = time.perf_counter()
            time.sleep(_ENCODING * len(pixels))
            busy += time.perf_counter() - start
            return torch.zeros(len(pixels), 4, 64, 64)

        painter: Any = SimpleNamespace(identity="device", encode_images=encode_images)

        def framed(image: str, size: tuple[int, int]) -> Framed:
            return images.cover(images.read(files[image], 10**8), size)

        start = time.perf_counter()
        latents.latents(
            painter, list(files), [(512, 512)] * len(files), framed,
            folder=folder / "cache", batch_images=_BATCH, report=silent,
        )  # fmt: skip
        return busy / (time.perf_counter() - start)


def _keys(entries: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(entries)]


def _reading(size: Size) -> Iterator[Line]:
    """Latents of SDXL at 1024 px, read in batches after the page cache was told to forget."""
    beside = _ROOT / "artifacts"  # on a disk; /tmp may be in memory
    beside.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as name:
        folder, keys = Path(name), _keys(_LATENTS[size])

        def encode(missing: Sequence[str]) -> dict[str, Tensor]:
            source = torch.Generator().manual_seed(int(missing[0][:8], 16))
            return {"latents": torch.randn(len(missing), 4, 128, 128, generator=source)}

        found = cache.filled(folder, keys, encode, batch=_BATCH, report=silent)
        shards = sorted(folder.glob("*.safetensors"))
        mega = sum(shard.stat().st_size for shard in shards) / 1e6

        def read(held: cache.Cache) -> None:
            column = cache.Column([(held, key) for key in keys], "latents")
            for start in range(0, len(keys), _BATCH):
                column[torch.arange(start, min(start + _BATCH, len(keys)))]

        def sequential() -> None:
            for shard in shards:
                with shard.open("rb", buffering=0) as file:
                    while file.read(_CHUNK):
                        pass

        plain = _same_reads(found, keys)
        for ours, what in (
            (lambda: read(cache.Cache(folder)), "the first time, each digest checked"),
            (lambda: read(found), "again"),
        ):
            for theirs, against, least in (
                (sequential, "the same files read from end to end", 0.8),
                (plain, "the same reads in the same order, no digest, no tensor", 0.95),
            ):
                turns = _cold(ours, theirs, shards, _ROUNDS[size])
                yield Line(
                    SECTION, f"reading {len(keys)} latents of 1024 px, {what}",
                    mega / turns[0], "MB/s", against,
                    mega / turns[1], turns[2], Goal("ratio", "≥", least),
                )  # fmt: skip


def _same_reads(found: cache.Cache, keys: Sequence[str]) -> Callable[[], None]:
    """Return what reads a batch's bytes as a column does, into a new piece of memory."""
    places = [found.place(key, "latents") for key in keys]
    each = places[0].empty(1).nbytes

    def batch(some: Sequence[Any]) -> None:
        room = np.empty(len(some) * each, np.uint8).data
        shards = {place.shard for place in some}
        with contextlib.ExitStack() as opened:
            files = {
                shard: opened.enter_context(FileIO(found.folder / shard)) for shard in shards
            }
            for place in some:
                os.posix_fadvise(
                    files[place.shard].fileno(), place.start, each, os.POSIX_FADV_WILLNEED
                )
            for at, place in enumerate(some):
                files[place.shard].seek(place.start)
                files[place.shard].readinto(room[at * each : (at + 1) * each])

    def read() -> None:
        for start in range(0, len(places), _BATCH):
            batch(places[start : start + _BATCH])

    return read


def _cold(
    ours: Callable[[], None], theirs: Callable[[], None], shards: Sequence[Path], rounds: int
) -> tuple[float, float, float]:
    """Medians of both, and of theirs over ours; before each the files leave the page cache."""
    pairs = []
    for turn in range(rounds + 1):
        spent = []
        for work in (ours, theirs):
            for shard in shards:
                with shard.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            spent.append(taking(work))
        if turn:
            pairs.append(spent)
    one, two = (float(np.median([pair[at] for pair in pairs])) for at in (0, 1))
    return one, two, float(np.median([b / a for a, b in pairs]))


def _resuming(size: Size) -> Line:
    """Open a finished cache in a fresh process, as a resumed stage does."""
    entries = _ENTRIES[size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def encode(missing: Sequence[str]) -> dict[str, Tensor]:
            source = torch.Generator().manual_seed(int(missing[0][:8], 16))
            return {"latents": torch.randn(len(missing), 4, 8, 8, generator=source)}

        cache.filled(folder, _keys(entries), encode, batch=_BATCH, report=silent)
        seconds = []
        for _ in range(3):
            said = subprocess.run(
                [sys.executable, "-m", "benchmarks.caching", str(folder), str(entries)],
                cwd=_ROOT, capture_output=True, text=True, check=True,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
            ).stdout  # fmt: skip
            seconds.append(float(said.splitlines()[-1]))
        shards = list(folder.glob("*.safetensors"))

        def stats() -> None:
            for shard in shards:
                with shard.open("rb") as file:
                    file.read(1 << 14)

        least = by_turns(stats, stats, rounds=3).figure
    took = float(np.median(seconds))
    return Line(
        SECTION, f"resuming a finished cache of {entries:,} entries, in a fresh process",
        took, "s", f"reading the first 16 kB of its {len(shards)} files", least,
        figure_ratio(took, least), Goal("figure", "≤", 2.0),
    )  # fmt: skip


def _resume(folder: Path, entries: int) -> None:
    """Print the seconds that a resumed stage spends on a cache that lacks nothing."""

    def encode(missing: Sequence[str]) -> dict[str, Tensor]:
        raise RuntimeError(f"{len(missing)} entries are missing")

    start = time.perf_counter()
    cache.filled(folder, _keys(entries), encode, batch=_BATCH, report=silent)
    sys.stdout.write(f"{time.perf_counter() - start}\n")


if __name__ == "__main__":
    _resume(Path(sys.argv[1]), int(sys.argv[2]))
