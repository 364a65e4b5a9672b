"""Locked outs: outs of stages as in dvc.lock, read from DVC's cache or remote."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """Yield DVC's outs by their paths, whatever lies in the working copy."""
    from dvc.fs.data import DataFileSystem
    from dvc.repo import Repo

    with Repo(os.curdir) as repo:
        yield DataFileSystem(index=repo.index.data["repo"])
