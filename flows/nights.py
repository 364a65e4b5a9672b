"""Nights: what is surprising about the results of one, and its commit on its own branch."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atelier import atomic
from tasks.run import git, paths

BRANCH = "nightly"
_LAST = Path(".dvc/tmp/atelier/night.json")  # results of the night before
_WATCHED = {"fid": "FID", "drift": "drift"}
_OWN = (paths.DVC_LOCK, paths.DATA_PIN)


def surprises(champion: tuple[str | None, str | None], slack: float) -> list[str]:
    """Return what a person should know of this night; it is the night before from now on.

    Args:
        champion: The address of the champion before and after.
        slack: By which share a painter's FID and drift may be worse than the night before.
    """
    before, now = _read(_LAST), _read(paths.SUITES)
    atomic.write(_LAST, json.dumps(now))
    was, becomes = champion
    found = [f"the champion is {becomes or 'none'}, and was {was}"] if was != becomes else []
    return found + list(_worse(before, now, slack))


def _worse(before: Mapping[str, Any], now: Mapping[str, Any], slack: float) -> Iterator[str]:
    for painter in before.keys() & now.keys():
        for name, label in _WATCHED.items():
            old, new = (suites[painter].get(name) for suites in (before, now))
            if old is not None and new is not None and new > (1 + slack) * old:
                yield f"{label} of {painter} is {new:.2f}, and was {old:.2f}"


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def commit() -> str:
    """Commit dvc.lock and data.dvc on the branch ``nightly``, or say why not.

    Neither the working copy nor its branch and index change. A commit's first parent is the one
    that was checked out; its second is the night before.
    """
    head = git.answer("rev-parse", "HEAD")
    if head is None:
        return "dvc.lock is not committed: this is no git repository with a commit"
    changes = git.answer("status", "--porcelain", "--untracked-files=no", ".", *_without_own())
    if changes is None or changes:
        return f"dvc.lock is not committed: its code is not, either:\n{changes}"
    tree = _tree(head)
    last = git.answer("rev-parse", "--verify", "--quiet", f"refs/heads/{BRANCH}")
    known = [git.answer("rev-parse", f"{rev}^{{tree}}") for rev in (head, last) if rev]
    if tree in known:
        return "dvc.lock is as it was committed"
    parents = ["-p", head, *(["-p", last] if last else [])]
    made = git.run("commit-tree", tree, *parents, "-m", "Change dvc.lock to a night's results")
    git.run("update-ref", f"refs/heads/{BRANCH}", made)
    return f"dvc.lock is committed on branch {BRANCH}: `git merge {BRANCH}` takes it over"


def _without_own() -> list[str]:
    return [f":!{file}" for file in _OWN]


def _tree(head: str) -> str:
    """Return the tree of HEAD with our files as they lie here, by an index of its own."""
    prefix = git.run("rev-parse", "--show-prefix")
    with tempfile.TemporaryDirectory() as folder:
        index = {**os.environ, "GIT_INDEX_FILE": f"{folder}/index"}
        git.run("read-tree", head, variables=index)
        for file in _OWN:
            if file.is_file():
                blob = git.run("hash-object", "-w", str(file))
                entry = f"100644,{blob},{prefix}{file}"
                git.run("update-index", "--add", "--cacheinfo", entry, variables=index)
        return git.run("write-tree", variables=index)
