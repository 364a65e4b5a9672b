"""Checksums beside files: what the disk gives back is what was written, or is known not to be.

They are written as ``sha256sum`` writes them, which can check them, too.
"""

import hashlib
from pathlib import Path

from atelier import atomic


def write(path: Path, at: Path) -> None:
    """Write the checksum of a file to ``at``. Remove that before ``path`` is written anew.

    Raises:
        DiskError: It cannot be written.
    """
    atomic.write(at, f"{sha256(path)}  {path.name}\n")


def damaged(path: Path, at: Path) -> bool:
    """Say whether a file is not what the checksum at ``at`` says; without one, nobody knows."""
    if not at.is_file():
        return False
    return at.read_text(encoding="utf-8", errors="replace").split(" ")[0] != sha256(path)


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
