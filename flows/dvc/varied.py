"""Trainings of ``atelier vary``: one objective for each value, by ``dvc repro cpo`` in a copy.

All of them are objectives of one run of the stage ``cpo``: the base is in memory once, θ1 is
trained once, and targets that several values share are computed once (``cpo.keep_targets``).
DVC's run cache keeps what was trained, so the same command trains nothing twice. The user's
files, dvc.lock and ``artifacts/`` stay as they are.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from atelier import atomic
from atelier.config.messages import explain
from atelier.config.profile import Profile, read_profile, read_switch
from atelier.errors import ArtifactError, ParamsError
from flows.dvc import overrides, runner, workspace
from tasks.commands import vary
from tasks.commands.vary import Wish
from tasks.run import git, paths, progress
from tasks.tracking import main_repository

_EXPERIMENT = "vary"  # what the trainings are called in MLflow


def run(wish: Wish, changes: Sequence[str]) -> list[Path]:
    """Train what the grids need, paint them, and return their files.

    Args:
        wish: What is varied and painted.
        changes: Settings for all rows, as ``cpo.training.steps=40``.

    Raises:
        ParamsError: A setting or a value does not fit; nothing was run.
        ArtifactError: A stage failed; says its last lines.
    """
    name = read_switch(paths.SWITCH)
    file = paths.profile(name)
    read_profile(file)
    values = overrides.parse(changes).applied(yaml.safe_load(file.read_bytes()))
    usual = _checked(values, file)
    made_by = {
        "profile": name,
        "settings": list(changes),
        "commit": git.answer("rev-parse", "HEAD"),
        "uncommitted": bool(git.answer(*git.CHANGES)),
    }
    wish = dataclasses.replace(
        wish, out=wish.out.absolute(), document=wish.document and wish.document.absolute()
    )
    if all(one.objective is None for one in wish.variations):
        return vary.run(usual, wish, usual, made_by)
    wanted = vary.objectives(values, wish)
    cpo = {"objectives": wanted, "featured": next(iter(wanted)), "keep_targets": True}
    varied = {**values, "cpo": values["cpo"] | cpo}
    profile = _checked(varied, file)
    with runner.repository_alone(progress.say), workspace.entered(), _named():
        atomic.write(file, yaml.safe_dump(varied, sort_keys=False, allow_unicode=True))
        _reproduce()
        return vary.run(profile, wish, usual, made_by)


def _checked(values: Mapping[str, Any], file: Path) -> Profile:
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{file} with the changes does not fit:\n{explain(error)}") from None


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Let the stages' runs in MLflow say what they are part of."""
    os.environ[main_repository.EXPERIMENT] = _EXPERIMENT
    try:
        yield
    finally:
        del os.environ[main_repository.EXPERIMENT]


def _reproduce() -> None:
    """Bring the stage cpo up to date, with what it needs, supervised: it ends with us."""
    words = runner.dvc("repro", "cpo")
    try:
        runner.command("cpo", words, None, more={}, tell=progress.say)
    except runner.StageFailedError as error:
        raise ArtifactError(f"{error}\nThe same command goes on from here") from None
