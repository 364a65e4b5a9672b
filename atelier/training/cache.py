"""Tensor cache on disk: shards of tensors by key, built once by several processes.

A cache is a folder of shards, which are safetensors files of several entries each. A shard's
header contains the digest of every tensor, and the file is named by the digest of its header.
So a corrupted header is detected when the cache is opened, and a corrupted tensor when it is
first read. Opening reads only headers, so a finished cache opens fast, and memory does not grow
with the data set.
"""

import contextlib
import functools
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from atelier import atomic
from atelier.errors import ArtifactError
from atelier.reporting import Report

Encode = Callable[[Sequence[str]], dict[str, Tensor]]

_SHARD_ENTRIES = 64  # most that a killed process loses, unless a batch is larger
_DIGESTS = "digests"


class Cache:
    """One folder of shards, as far as they are known; ``look`` finds what others added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shard_of: dict[str, Path] = {}
        self._digests: dict[str, str] = {}
        self._seen: set[str] = set()  # names of shards
        self._whole: set[str] = set()
        self.look()

    def __contains__(self, key: str) -> bool:
        return key in self._shard_of

    def look(self) -> set[str]:
        """Read the headers of shards that are new, and return the keys of their entries.

        A damaged shard is removed.
        """
        found: set[str] = set()
        for name in sorted(_shards(self.folder) - self._seen):
            path = self.folder / name
            digests = _header(path)
            if digests is None:
                path.unlink(missing_ok=True)
                warnings.warn(
                    f"{path} was corrupted on disk, and is removed; its entries are encoded "
                    "again",
                    stacklevel=2,
                )
                continue
            self._seen.add(name)
            self._digests |= digests
            keys = {name.split(" ", 1)[0] for name in digests}
            self._shard_of |= dict.fromkeys(keys, path)
            found |= keys
        return found

    def names(self, key: str) -> list[str]:
        """Return what the tensors of an entry are called, in order."""
        named = f"{key} "
        return sorted(
            name.removeprefix(named) for name in self._digests if name.startswith(named)
        )

    def read(self, key: str, name: str) -> Tensor:
        """Return one tensor in float32.

        Raises:
            ArtifactError: The disk gave other bytes than were written; they are removed.
        """
        path, full = self._shard_of[key], f"{key} {name}"
        try:
            # A clone is aligned in memory; a view of the file gives results off by ~1e-6.
            tensor: Tensor = _opened(path).get_tensor(full).clone()
            whole = full in self._whole or _digest(_bytes(tensor)) == self._digests[full]
        except (OSError, safetensors.SafetensorError):
            whole = False
        if not whole:
            path.unlink(missing_ok=True)
            _opened.cache_clear()  # or the new file of this name would be read from the old
            raise ArtifactError(
                f"{path} was corrupted on disk, and is removed; run the same command again: "
                "its entries are encoded again, and training resumes from its last checkpoint"
            )
        self._whole.add(full)
        return tensor.float()

    def write(self, entries: dict[str, dict[str, Tensor]]) -> None:
        """Add a shard.

        Raises:
            DiskError: It cannot be written; the shards before it are kept.
        """
        flat = {
            f"{key} {name}": _smallest(tensor.cpu()).contiguous()
            for key, tensors in entries.items()
            for name, tensor in tensors.items()
        }
        digests = {name: _digest(_bytes(tensor)) for name, tensor in flat.items()}
        content = safetensors.torch.save(flat, {_DIGESTS: json.dumps(digests)})
        name = _digest(content[: _header_bytes(content[:8])])
        atomic.write(self.folder / f"{name}.safetensors", content)


class Column:
    """One tensor of each entry; rows of equal shape are read and stacked when asked for."""

    def __init__(self, entries: Sequence[tuple[Cache, str]], name: str) -> None:
        self._entries, self._name = entries, name

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the given rows, ``[B]`` indices, float32 ``[B, ...]``.

        Raises:
            ArtifactError: An entry is damaged.
        """
        chosen = [self._entries[row] for row in rows.tolist()]
        return torch.stack([cache.read(key, self._name) for cache, key in chosen])


def filled(
    folder: Path, keys: Sequence[str], encode: Encode, *, batch: int, report: Report
) -> Cache:
    """Return the cache in ``folder`` with an entry for every key, encoding those it lacks.

    Processes that fill one folder share the work: each claims a piece of the keys by a lock,
        takes unclaimed pieces first, and then waits for the rest. A lock ends with its process.

    Args:
        folder: The cache.
        keys: Digests; what an entry is made from.
        encode: Makes entries: tensors by name, entries along dimension 0.
        batch: Entries encoded at once.
        report: Receives how many of the missing ones are done.
    """
    cache = Cache(folder)
    distinct = list(dict.fromkeys(keys))
    size = max(_SHARD_ENTRIES // batch, 1) * batch
    pieces = [distinct[start : start + size] for start in range(0, len(distinct), size)]
    pieces = [piece for piece in pieces if any(key not in cache for key in piece)]
    lacking = {key for piece in pieces for key in piece if key not in cache}
    done = 0
    for wait in (False, True):
        claimed_by_others = []
        for piece in pieces:
            with _claim(folder, piece, wait=wait) as mine:
                done += len(cache.look() & lacking)
                report(done, {})
                if mine:
                    tell = functools.partial(_told, report, done)
                    done += len(_encode(cache, piece, encode, batch, tell) & lacking)
                else:
                    claimed_by_others.append(piece)
        pieces = claimed_by_others
    return cache


def _told(report: Report, before: int, done: int) -> None:
    report(before + done, {})


def _encode(
    cache: Cache,
    piece: Sequence[str],
    encode: Encode,
    batch: int,
    tell: Callable[[int], None],
) -> set[str]:
    """Add what a piece lacks; return the keys that are there since."""
    missing = [key for key in piece if key not in cache]
    entries: dict[str, dict[str, Tensor]] = {}
    for start in range(0, len(missing), batch):
        keys = missing[start : start + batch]
        encoded = encode(keys)
        for row, key in enumerate(keys):
            entries[key] = {name: tensor[row] for name, tensor in encoded.items()}
        tell(len(entries))
    if entries:
        cache.write(entries)
    return cache.look() if entries else set()


@contextlib.contextmanager
def _claim(folder: Path, piece: Sequence[str], *, wait: bool) -> Iterator[bool]:
    """Whether this process may encode a piece; another one may be at it."""
    lock = folder / "locks" / _digest(" ".join(piece).encode())[:16]
    with atomic.clear_disk_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(lock, blocking=wait):
            yield True
    except filelock.Timeout:
        yield False


def _shards(folder: Path) -> set[str]:
    """Names, not paths: a folder of thousands is listed for each piece."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.endswith(".safetensors")}


def _header(path: Path) -> dict[str, str] | None:
    """Digest of each tensor, or None where the file is not what was written."""
    with path.open("rb") as file:
        start = file.read(8)
        content = start + file.read(max(_header_bytes(start) - 8, 0))
        if len(start) < 8 or _digest(content) != path.stem:
            return None
        header: dict[str, Any] = json.loads(content[8:])
        digests: dict[str, str] = json.loads(header.pop("__metadata__")[_DIGESTS])
        end = max(tensor["data_offsets"][1] for tensor in header.values())
        return digests if path.stat().st_size == len(content) + end else None


def _header_bytes(start: bytes) -> int:
    """Length of a safetensors header from its first 8 bytes, which it includes."""
    return 8 + min(int.from_bytes(start, "little"), 1 << 28)


@functools.lru_cache(maxsize=256)
def _opened(path: Path) -> Any:
    """A memory-mapped shard; only what is asked for is read."""
    return safetensors.safe_open(path, framework="pt")


def _smallest(tensor: Tensor) -> Tensor:
    """Half precision where that loses nothing, as after an encoder that computes in it."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(tensor.to(dtype).to(tensor.dtype), tensor):
            return tensor.to(dtype)
    return tensor


def _bytes(tensor: Tensor) -> memoryview:
    content: memoryview = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
    return content


def _digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
