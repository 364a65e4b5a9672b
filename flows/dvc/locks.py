"""DVC locks: removes entries of dead processes from ``.dvc/tmp/rwlock``.

DVC records in .dvc/tmp/rwlock which process reads or writes which file, and removes the entry
when the process ends. After a ``kill -9`` the entry stays. If another process has the same id
later, as in a restarted container, DVC takes it for the reader and refuses forever. If DVC is
killed while it writes the list, it refuses everything.
"""

import json
from pathlib import Path
from typing import Any

import psutil

from atelier import atomic

_LIST = Path(".dvc/tmp/rwlock")


def strike_out_the_dead() -> None:
    """Leave in the list who lives; remove a list that a killed process left half written."""
    from dvc.lock import make_lock

    if not _LIST.is_file():
        return
    # DVC's own guard: while it is held no process writes the list.
    with make_lock(f"{_LIST}.lock", tmp_dir=str(_LIST.parent)):
        try:
            noted = json.loads(_LIST.read_text(encoding="utf-8"))
        except ValueError:
            _LIST.unlink()
            return
        alive = _alive(noted)
        if alive != noted:
            atomic.write(_LIST, json.dumps(alive))


def _alive(noted: dict[str, Any]) -> dict[str, Any]:
    readers = {
        path: [who for who in several if _lives(who)]
        for path, several in noted.get("read", {}).items()
    }
    writers = {path: who for path, who in noted.get("write", {}).items() if _lives(who)}
    lists = {"write": writers, "read": {path: who for path, who in readers.items() if who}}
    return {mode: paths for mode, paths in lists.items() if paths}


def _lives(who: dict[str, Any]) -> bool:
    """Whether the process of a note is there, and not another one of its number."""
    words: list[str] = who["cmd"].split()[1:]
    try:
        running = " ".join(psutil.Process(who["pid"]).cmdline()).split()
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
    return running[len(running) - len(words) :] == words
