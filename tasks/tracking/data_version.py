"""Version of ``data/``: the md5 that DVC gives the folder, for runs and models."""

import os
from pathlib import Path
from typing import Any

import yaml

from tasks.run import paths


def of_run(stage: str) -> str | None:
    """Return the md5 that DVC computed of data/ before it started the stage that runs now.

    dvc.lock has it only after the stage, and data.dvc only after ``dvc add``. DVC keeps the
    hash of each file, so asking again costs a second, or less.

    Args:
        stage: Its name; one that does not read data/ works on what dvc.lock has.
    """
    from dvc.exceptions import DvcException

    try:
        return _asked(stage) or locked()
    except (DvcException, OSError):
        return locked()


def locked() -> str | None:
    """Return the md5 of data/ of which the models in dvc.lock are; without any, of data.dvc."""
    stages = _yaml(paths.DVC_LOCK).get("stages") or {}
    trained_first = sorted(stages, key=lambda name: name not in ("cpo", "sft"))
    known = [_md5_in(stages[name].get("deps") or []) for name in trained_first]
    known.append(_md5_in(_yaml(paths.DATA_PIN).get("outs") or []))
    return next(filter(None, known), None)


def _asked(stage: str) -> str | None:
    from dvc.repo import Repo

    with Repo(os.curdir) as repo:
        for one in repo.index.stages:
            if getattr(one, "name", None) == stage:
                deps = [dep for dep in one.deps if str(dep) == str(paths.DATA) and dep.exists]
                return next((str(dep.get_hash().value) for dep in deps), None)
    return None


def _md5_in(rows: list[dict[str, Any]]) -> str | None:
    return next((str(row["md5"]) for row in rows if row["path"] == str(paths.DATA)), None)


def _yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
