"""Files that are either whole or absent: written beside their place, synced, then renamed."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from atelier.errors import DiskError

_CURES = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "it is larger than the largest file allowed here (`ulimit -f`); raise that",
    errno.EROFS: "the file system is read-only; mount it writable and run again",
    errno.EACCES: "this user may not write there; change the folder's owner or mode",
}


def write(path: Path, content: bytes | str) -> None:
    """Put ``content`` at ``path`` in one step: a reader sees the old file or the new one.

    Raises:
        DiskError: It cannot be written; the old file, if any, is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


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
