"""Resume folders of interrupted stages, named by a hash of the stage's inputs.

DVC deletes a stage's outs before it runs, so what must outlive a crash lies outside them. The
same params and inputs find the same folder; any change finds an empty one.
"""

import hashlib
import shutil
from pathlib import Path

from pydantic import BaseModel

from atelier import checksums
from tasks.run import paths


def folder(stage: str, *made_of: BaseModel | Path | str) -> Path:
    """Return the folder of this work: params, input files and folders, names."""
    return paths.RESUME / f"{stage}-{key(*made_of)[:16]}"


def key(*made_of: BaseModel | Path | str) -> str:
    """Return a hash of what something is made of: params, input files and folders, names."""
    digest = hashlib.sha256()
    for part in made_of:
        if isinstance(part, BaseModel):
            digest.update(part.model_dump_json().encode())
        elif isinstance(part, Path):
            _add(digest, part)
        else:
            digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def done(work: Path) -> None:
    """Remove the folder of finished work, and those of the same stage that were given up."""
    stage = work.name.rsplit("-", 1)[0]
    for path in work.parent.glob(f"{stage}-*"):
        if path.name.rsplit("-", 1)[0] == stage:
            shutil.rmtree(path)


def _add(digest: "hashlib._Hash", path: Path) -> None:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            found = checksums.remembered(file, paths.CHECKSUMS)
            digest.update(bytes.fromhex(found))
