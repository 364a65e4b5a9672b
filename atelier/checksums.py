"""Checksums of files, stored next to them, to detect corruption when a file is read.

The format is that of ``sha256sum``, which can verify them too.
"""

import hashlib
from pathlib import Path

from atelier import atomic


def write(path: Path, at: Path) -> None:
    """Write the checksum of a file to ``at``. Remove that before ``path`` is written again.

    Raises:
        DiskError: It cannot be written.
    """
    atomic.write(at, f"{sha256(path)}  {path.name}\n")


def damaged(path: Path, at: Path) -> bool:
    """Say whether a file differs from its checksum at ``at``; False if there is none."""
    if not at.is_file():
        return False
    return at.read_text(encoding="utf-8", errors="replace").split(" ")[0] != sha256(path)


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
