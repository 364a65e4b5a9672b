"""Tensor cache on disk: shards of tensors by key, built once by several processes.

A cache is a folder of shards, which are safetensors files of several entries each. A shard's
header contains the digest of every tensor, and the file is named by the digest of its header.
So a corrupted header is detected when the cache is opened, and a corrupted tensor when a
process first reads it. Opening reads only headers, so a finished cache opens fast.

Digests of tensors are XXH3's of 128 bits, which are taken faster than memory is read; they find
damage, not forgery. Shards of earlier versions have SHA-256, and are checked by it.
"""

import contextlib
import functools
import hashlib
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import psutil
import safetensors.torch
import torch
import xxhash
from torch import Tensor

from atelier import atomic
from atelier.errors import ArtifactError
from atelier.reporting import Report

Encode = Callable[[Sequence[str]], dict[str, Tensor]]

_SHARD_ENTRIES = 64  # most that a killed process loses, unless a batch is larger
_DIGESTS = "digests"
_SHA256 = 64  # characters of a digest of earlier versions
_FETCHED_AT_ONCE = 1 << 24  # bytes
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


# As `_Place`. Plain tuples of plain values: at everything else Python's garbage collector looks
# again and again, which takes longer than to read the headers.
_Plain = tuple[str, int, torch.dtype, tuple[int, ...], str | None]


class _Place(NamedTuple):
    """Where a tensor lies: shard, first byte, type, shape; its digest until it was checked."""

    shard: str
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    digest: str | None

    def empty(self, count: int) -> Tensor:
        """Return room for so many of it, ``[count, ...]``."""
        return torch.empty((count, *self.shape), dtype=self.dtype)


class Cache:
    """One folder of shards, as far as they are known; ``look`` finds what others added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, dict[str, _Plain]] = {}  # of an entry's tensors, by its key
        self._bytes: dict[str, int] = {}  # of each shard, by its name
        self._ahead = 0  # bytes that were fetched and not yet read
        self.look()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def look(self) -> set[str]:
        """Read the headers of shards that are new, and return the keys of their entries.

        A damaged shard is removed.
        """
        new = sorted(_shards(self.folder) - self._bytes.keys())
        return {key for name in new for key in self._add(name)}

    def _add(self, name: str) -> set[str]:
        """Read the header of a shard, and return the keys of its entries."""
        path = self.folder / name
        found = _header(path)
        if found is None:
            path.unlink(missing_ok=True)
            warnings.warn(
                f"{path} was corrupted on disk, and is removed; its entries are encoded again",
                stacklevel=3,
            )
            return set()
        self._bytes[name], places = found
        self._places |= places
        return set(places)

    def names(self, key: str) -> list[str]:
        """Return what the tensors of an entry are called, in order."""
        return sorted(self._places[key])

    def place(self, key: str, name: str) -> _Place:
        """Return where a tensor lies."""
        return _Place(*self._places[key][name])

    def read(self, key: str, name: str) -> Tensor:
        """Return one tensor in float32.

        Raises:
            ArtifactError: The disk gave other bytes than were written; they are removed.
        """
        return Column([(self, key)], name)[torch.zeros(1, dtype=torch.long)][0]

    def fill(self, key: str, name: str, file: FileIO, row: memoryview) -> None:
        """Read the bytes of a tensor into ``row``, from its opened shard.

        Raises:
            ArtifactError: The disk gave other bytes than were written; they are removed.
        """
        shard, start, dtype, shape, digest = self._places[key][name]
        try:
            file.seek(start)
            whole = _read_all(file, row) and _is(row, digest)
        except OSError:
            whole = False
        if not whole:
            raise _removed(self.folder / shard)
        if digest is not None:
            self._places[key][name] = (shard, start, dtype, shape, None)

    def fetched_ahead(self, count: int) -> bool:
        """Whether a thread fetches the shards into the system's memory: where all of them fit.

        A training reads all of a cache in each epoch, here and there, and disks are best at
        files from end to end. The thread begins again whenever as much was read as there is,
        since what was fetched may have left memory.

        Args:
            count: Bytes that are about to be read.
        """
        if not self._has_room:
            return False
        if self._ahead <= 0:
            self._ahead = sum(self._bytes.values())
            shards = [self.folder / name for name in self._bytes]
            threading.Thread(target=_fetch, args=(shards,), daemon=True).start()
        self._ahead -= count
        return True

    @functools.cached_property
    def _has_room(self) -> bool:
        """Whether memory that is free could hold all shards twice, and Linux is there."""
        free: int = psutil.virtual_memory().available
        return sys.platform == "linux" and 2 * sum(self._bytes.values()) < free

    def write(self, entries: dict[str, dict[str, Tensor]]) -> set[str]:
        """Add a shard; return the keys of its entries.

        Raises:
            DiskError: It cannot be written; the shards before it are kept.
        """
        flat = {
            f"{key} {name}": _smallest(tensor.cpu()).contiguous()
            for key, tensors in entries.items()
            for name, tensor in tensors.items()
        }
        digests = {name: _quick(_bytes(tensor)) for name, tensor in flat.items()}
        content = safetensors.torch.save(flat, {_DIGESTS: json.dumps(digests)})
        name = f"{_digest(content[: _header_bytes(content[:8])])}.safetensors"
        atomic.write(self.folder / name, content)
        return self._add(name)


class Column:
    """One tensor of each entry; rows of equal shape are read and stacked when asked for."""

    def __init__(self, entries: Sequence[tuple[Cache, str]], name: str) -> None:
        self._entries, self._name = entries, name

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self, rows: Tensor) -> list[str]:
        """Return what the given rows, ``[B]`` indices, are made from."""
        return [self._entries[row][1] for row in rows.tolist()]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return the given rows, ``[B]`` indices, float32 ``[B, ...]``.

        Bytes go straight into the batch. Of a mapped file they would be copied from pages, and
        computing with the pages themselves, which are not aligned, gives other results.

        Raises:
            ArtifactError: An entry is damaged.
        """
        chosen = [self._entries[row] for row in rows.tolist()]
        places = [cache.place(key, self._name) for cache, key in chosen]
        kinds = {(place.dtype, place.shape) for place in places}
        if len(kinds) == 1:
            tensors = [places[0].empty(len(places))]
            content = _bytes(tensors[0])
            each = len(content) // len(places)
            parts = [content[row * each : (row + 1) * each] for row in range(len(places))]
        else:
            tensors = [place.empty(1)[0] for place in places]
            parts = [_bytes(tensor) for tensor in tensors]
        with contextlib.ExitStack() as opened:
            shards = [
                (cache, place.shard) for (cache, _), place in zip(chosen, places, strict=True)
            ]
            files = {
                one: opened.enter_context(_opened(one[0].folder / one[1]))
                for one in set(shards)
            }
            for (cache, _), shard, place, part in zip(
                chosen, shards, places, parts, strict=True
            ):
                if not cache.fetched_ahead(len(part)):
                    _announce(files[shard], place.start, len(part))
            for (cache, key), shard, part in zip(chosen, shards, parts, strict=True):
                cache.fill(key, self._name, files[shard], part)
        return (
            tensors[0].float() if len(kinds) == 1 else torch.stack([t.float() for t in tensors])
        )


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
            with _claim(folder, piece, wait=wait) as (mine, new):
                done += 0 if new else len(cache.look() & lacking)
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
        encoded = {name: tensor.unbind() for name, tensor in encode(keys).items()}
        for row, key in enumerate(keys):
            entries[key] = {name: tensors[row] for name, tensors in encoded.items()}
        tell(len(entries))
    return cache.write(entries) if entries else set()


@contextlib.contextmanager
def _claim(folder: Path, piece: Sequence[str], *, wait: bool) -> Iterator[tuple[bool, bool]]:
    """Whether this process may encode a piece, and whether no process ever claimed it before.

    Locks stay in the folder. Only of a piece that has one may others have added something, so
    that a single process never lists the growing folder.
    """
    lock = folder / "locks" / _digest(" ".join(piece).encode())[:16]
    with atomic.clear_disk_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
    new = not lock.exists()
    try:
        with filelock.FileLock(lock, blocking=wait):
            yield True, new
    except filelock.Timeout:
        yield False, False


def _shards(folder: Path) -> set[str]:
    """Names, not paths: a folder of thousands is listed for each piece that others claimed."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.name.endswith(".safetensors")}


def _header(path: Path) -> tuple[int, dict[str, dict[str, _Plain]]] | None:
    """Bytes of a shard and places of the tensors of each entry; None if it is damaged."""
    with path.open("rb") as file:
        start = file.read(8)
        content = start + file.read(max(_header_bytes(start) - 8, 0))
        if len(start) < 8 or _digest(content) != path.stem:
            return None
        size = os.fstat(file.fileno()).st_size
    header: dict[str, Any] = json.loads(content[8:])
    digests: dict[str, str] = json.loads(header.pop("__metadata__")[_DIGESTS])
    if size != len(content) + max(tensor["data_offsets"][1] for tensor in header.values()):
        return None
    places: dict[str, dict[str, _Plain]] = {}
    for full, tensor in header.items():
        key, name = full.split(" ", 1)
        places.setdefault(key, {})[sys.intern(name)] = (
            path.name,
            len(content) + tensor["data_offsets"][0],
            _DTYPES[tensor["dtype"]],
            tuple(tensor["shape"]),
            digests[full],
        )
    return size, places


def _header_bytes(start: bytes) -> int:
    """Length of a safetensors header from its first 8 bytes, which it includes."""
    return 8 + min(int.from_bytes(start, "little"), 1 << 28)


def _opened(shard: Path) -> FileIO:
    """A shard, read without a buffer in between.

    Raises:
        ArtifactError: It is gone, or cannot be opened.
    """
    try:
        return FileIO(shard)
    except OSError:
        raise _removed(shard) from None


def _announce(file: FileIO, start: int, count: int) -> None:
    """Let the system fetch bytes ahead, where it can: a batch's lie here and there."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), start, count, os.POSIX_FADV_WILLNEED)


def _fetch(shards: Sequence[Path]) -> None:
    """Fetch files into the system's memory from end to end; nothing is copied on the way."""
    with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        for shard in shards:
            with FileIO(shard) as file:
                sent = 0
                while count := os.sendfile(
                    nowhere.fileno(), file.fileno(), sent, _FETCHED_AT_ONCE
                ):
                    sent += count


def _read_all(file: FileIO, into: memoryview) -> bool:
    """Whether there was enough to read."""
    done = 0
    while done < len(into):
        count = file.readinto(into[done:])
        if not count:
            return False
        done += count
    return True


def _removed(shard: Path) -> ArtifactError:
    """Remove a damaged shard; return the error that says so."""
    shard.unlink(missing_ok=True)
    return ArtifactError(
        f"{shard} was corrupted on disk, and is removed; run the same command again: its "
        "entries are encoded again, and training resumes from its last checkpoint"
    )


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


def _quick(content: memoryview) -> str:
    found: str = xxhash.xxh3_128_hexdigest(content)
    return found


def _is(content: memoryview, digest: str | None) -> bool:
    """Whether bytes are as they were written; None: that was seen before."""
    if digest is None:
        return True
    return digest == (_digest(content) if len(digest) == _SHA256 else _quick(content))
