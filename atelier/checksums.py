"""Checksums of files: stored next to them to detect corruption, or remembered of large ones.

The format next to a file is that of ``sha256sum``, which can verify them too. Files of
gigabytes, such as a base's weights, are hashed once and remembered by size and time of change.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from atelier import atomic

_LARGE = 16_000_000  # bytes; what is smaller is hashed each time
_SETTLED = 2.0  # seconds: a file changed later may change again at the same time, unnoticed


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


def remembered(path: Path, memory: Path) -> str:
    """Return the sha256 of a file's bytes; of a large one from ``memory`` if it is unchanged.

    Args:
        path: The file.
        memory: A JSON file of what was hashed before, by place, size and time of change.
    """
    about = path.stat()
    if about.st_size < _LARGE:
        return sha256(path)
    place, state = str(path.resolve()), [about.st_size, about.st_mtime_ns, about.st_ino]
    known = _known(memory)
    if known.get(place, [None])[:-1] == state:
        return str(known[place][-1])
    found = sha256(path)
    if time.time() - about.st_mtime > _SETTLED:
        # Read again: another process may have added to it meanwhile.
        atomic.write(memory, json.dumps(_known(memory) | {place: [*state, found]}) + "\n")
    return found


def _known(memory: Path) -> dict[str, Any]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # absent, or torn: what is hashed again is right
    return found if isinstance(found, dict) else {}
