"""The files of a study, in ``artifacts/survey/<name>/``.

``study.json`` and ``pictures/`` are all that the server reads, and tell nothing of who painted
what; ``key.json`` does, and only ``analyse`` opens it. ``votes.db`` holds what people answered,
unless a database elsewhere does. Nothing else makes these files again: no run deletes them.
"""

import hashlib
import re
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from atelier.config.fields import Params
from atelier.config.messages import explain
from atelier.errors import ArtifactError, ParamsError
from tasks.run import paths

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_File = TypeVar("_File", bound=Params)


class Definition(Params):
    """One criterion of a dimension, as people read it."""

    positive: str
    positive_means: str
    negative: str
    negative_means: str


class Dimension(Params):
    """Along what two pictures are compared: a root of the criteria."""

    key: str
    name: str
    about: str
    criteria: list[Definition]


class Asked(Params):
    """One question of a sheet: two pictures by the names of their files."""

    left: str
    right: str
    dimension: str
    caption: int  # its place in Study.captions


class Study(Params):
    """``study.json``: what people are asked."""

    name: str
    contact: str | None
    dimensions: list[Dimension]
    captions: list[str]
    pictures: list[str]  # names of files in pictures/, sorted
    raters: int  # people of each group who see each pair, once each sheet is answered
    sheets: dict[str, list[list[Asked]]]  # by group


class Shown(Params):
    """What a file in pictures/ is."""

    painter: str
    prompt: int
    ruined: bool
    sha256: str


class Painter(Params):
    """Who was compared."""

    name: str
    label: str
    weights: (
        str | None
    )  # DVC's md5 of its LoRA, which the registry knows; null: not known there


class Key(Params):
    """``key.json``: who painted what, and how the votes are to be counted."""

    study: str  # sha256 of study.json
    painters: list[Painter]
    pictures: dict[str, Shown]
    checks_passed: float
    bootstrap: int | None = None  # of studies made by earlier versions; no longer used
    seed: int
    made: dict[str, str]  # from which code and data


def folder(name: str) -> Path:
    """Return where the study ``name`` lies.

    Raises:
        ParamsError: That is no name for a study.
    """
    if not _NAME.fullmatch(name):
        raise ParamsError(
            f"{name!r} is not a valid name of a study; use up to 41 lower-case letters, digits "
            "and hyphens, such as `spring-1`"
        )
    return paths.SURVEY / name


def study(name: str) -> Study:
    """Read what people are asked.

    Raises:
        ArtifactError: There is no such study, or its file is damaged.
    """
    return _read(folder(name) / "study.json", Study)


def key(name: str) -> Key:
    """Read who painted what.

    Raises:
        ArtifactError: It is absent, damaged, or of another study.
    """
    file = folder(name) / "key.json"
    found = _read(file, Key)
    if found.study != digest(name):
        raise ArtifactError(
            f"{file} belongs to another study than study.json in its folder; restore both as "
            "`atelier survey make` wrote them"
        )
    return found


def digest(name: str) -> str:
    """Return the hash by which the votes know the study that they belong to."""
    return hashlib.sha256((folder(name) / "study.json").read_bytes()).hexdigest()


def _read(file: Path, model: type[_File]) -> _File:
    try:
        return model.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        there = paths.SURVEY.glob("*/study.json")
        names = ", ".join(sorted(one.parent.name for one in there)) or "none yet"
        raise ArtifactError(
            f"{file} is absent; `atelier survey make NAME` makes a study; there is: {names}"
        ) from None
    except ValidationError as error:
        raise ArtifactError(f"{file} does not fit:\n{explain(error)}") from None
