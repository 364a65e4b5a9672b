"""Kept parts of a stage's result, reused because nothing that made them changed.

A part is a folder in a stage's out: the θ of an objective, the pictures of a candidate. Its
file ``made_of.json`` holds the key of everything that made it, and the sha256 of each of its
files.

DVC removes a stage's outs before it runs the stage. So a part is looked for where it lies,
which helps a stage that was started by hand, and then in DVC's cache, where dvc.lock has the
last result. Outs that are ``persist: true`` would stay, but DVC's run cache leaves out stages
that have such: a former result, or that of another machine, could not be restored any more.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atelier import atomic, checksums
from tasks.run import locked_outs, paths, progress

MADE_OF = "made_of.json"
NOTHING = "ATELIER_KEEP_NOTHING"  # variable: every part is made again


def take(out: Path, keys: Mapping[str, str], spare: Path | None = None) -> set[str]:
    """Leave in ``out`` the parts with these keys, from wherever they are, and nothing else.

    Args:
        out: Of the stage.
        keys: By the name of the part: the path of its folder below ``out``.
        spare: Another folder of whole parts: those that an interrupted run had finished.

    Returns:
        Names of the parts that are there and whole; the others are to be made.
    """
    wanted = {} if os.environ.get(NOTHING) else dict(keys)
    found = {name for name, key in wanted.items() if _is_whole(out / name, key)}
    with atomic.clear_disk_errors(out):
        _clear(out, {out / name for name in found})
    for name, key in wanted.items():
        if spare is not None and name not in found and _is_whole(spare / name, key):
            atomic.copy_tree(spare / name, out / name)
            found.add(name)
    absent = [name for name in wanted if name not in found]
    if absent:
        with _locked(out) as outs:
            found |= {name for name in absent if _bring(outs, out / name, wanted[name])}
    return found


def _clear(folder: Path, parts: set[Path]) -> None:
    """Remove everything below a folder except some folders."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path in parts:
            continue
        if any(path in part.parents for part in parts):
            _clear(path, parts)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def seal(folder: Path, key: str) -> None:
    """Write down what a part is made of, once all of its files are there.

    Raises:
        DiskError: It cannot be written.
    """
    content = {"key": key, "files": _sums(folder)}
    atomic.write(folder / MADE_OF, json.dumps(content, indent=1) + "\n")


def to_make(out: Path, keys: Mapping[str, str]) -> list[str]:
    """Return the names of the parts that ``take`` would not find; nothing is changed."""
    with _locked(out) as outs:
        locked = {name: _there(outs, out / name).get("key") for name in keys}
    return [
        name
        for name, key in keys.items()
        if key not in {_here(out / name).get("key"), locked[name]}
    ]


def _is_whole(folder: Path, key: str) -> bool:
    said = _here(folder)
    return said.get("key") == key and said.get("files") == _sums(folder)


def _sums(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): checksums.sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MADE_OF
    }


def _here(folder: Path) -> dict[str, Any]:
    """What a part says of itself; nothing where it is absent or damaged."""
    file = folder / MADE_OF
    return _parsed(file.read_bytes()) if file.is_file() else {}


def _there(outs: Any, folder: Path) -> dict[str, Any]:
    """The same of a part in DVC's cache."""
    if outs is None:
        return {}
    from dvc_data.index import DataIndexError

    try:
        return _parsed(outs.cat_file(str(folder / MADE_OF)))
    except (OSError, DataIndexError):
        return {}


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _bring(outs: Any, folder: Path, key: str) -> bool:
    """Copy a part from DVC's cache if it has this key; return whether it is whole then."""
    said = _there(outs, folder)
    if said.get("key") != key:
        return False
    try:
        with atomic.clear_disk_errors(folder):
            for name in [*said["files"], MADE_OF]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                outs.get_file(str(folder / name), str(folder / name))
    except OSError as error:
        progress.say(f"{folder.name}: DVC's cache has not all of it: {error}")
    if _is_whole(folder, key):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[Any]:
    """Yield DVC's outs; None where dvc.lock has no such out, for asking DVC takes a second."""
    lock = paths.DVC_LOCK
    if lock.is_file() and f"path: {out.as_posix()}\n" in lock.read_text(encoding="utf-8"):
        with locked_outs.opened() as outs:
            yield outs
    else:
        yield None
