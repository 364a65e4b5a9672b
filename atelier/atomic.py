"""Atomic file writing: temporary file, sync, rename; a file is complete or absent."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from atelier.errors import DiskError

_CURES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "it is larger than the largest file allowed here (`ulimit -f`); raise that",
    errno.EROFS: "the file system is read-only; mount it writable and run again",
    errno.EACCES: "this user may not write there; change the folder's owner or mode",
}
_PARTIAL = ".partial"


def write(path: Path, content: bytes | str) -> None:
    """Put ``content`` at ``path`` in one step: a reader sees the old file or the new one.

    Raises:
        DiskError: It cannot be written; the old file, if any, is untouched.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of ``path`` once all of it is on the disk.

    Raises:
        DiskError: It cannot be written; the old file, if any, is untouched.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(partial) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)


def copy_tree(source: Path, target: Path) -> None:
    """Put a copy of a folder in the place of ``target``, once all of it is there.

    Raises:
        DiskError: It cannot be written; ``target`` is as it was.
    """
    partial = target.with_name(f"{target.name}{_PARTIAL}")
    with clear_disk_errors(target):
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
        try:
            partial.mkdir(parents=True)
            # Not shutil.copytree: its error has no number by which a full disk is known.
            for path in sorted(source.rglob("*")):
                place = partial / path.relative_to(source)
                if path.is_dir():
                    place.mkdir()
                else:
                    shutil.copyfile(path, place)
            if target.exists():
                shutil.rmtree(target)
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes had begun to write below ``folder``; others write on."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and name.endswith(_PARTIAL):
                _remove_if_free(Path(place, name))


def _remove_if_free(partial: Path) -> None:
    # Read-only, gone, or a file system without locks: then it stays.
    with contextlib.suppress(OSError), partial.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        partial.unlink()


@contextlib.contextmanager
def _claimed(partial: Path) -> Iterator[BinaryIO]:
    """Open a file and hold its lock, which dies with the process, against ``sweep``."""
    while True:
        with partial.open("wb") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if partial.exists():  # else it was swept between the two
                yield file
                return


@contextlib.contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn the disk's own refusals while writing ``path`` into a ``DiskError`` with a cure."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CURES:
            raise
        raise DiskError(
            f"{path} could not be written: {_CURES[error.errno]}. "
            "Everything finished before this is kept."
        ) from None
