"""Run names: what a run is called in lists, after its profile, what differs, and who asked.

``starter: ω=2, 24 prompts · by ana`` tells two runs of one evening apart; a list of equal names
does not. A name that a person typed is kept as it is.
"""

import getpass
import os
from collections.abc import Mapping
from typing import Any

import yaml

from atelier.config.profile import read_switch
from tasks.run import git, paths

NAME = (
    "ATELIER_RUN_NAME"  # variable: what a flow's run is called, for the stages that it starts
)
_SYMBOLS = {"omega": "ω", "beta": "β", "guidance": "g"}
_OBJECTIVES = "cpo.objectives."
_SHOWN = 3  # differences; a longer name would be cut in every list


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested values by dotted name."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{above}{key}.")
        else:
            rows[f"{above}{key}"] = value
    return rows


def said(differences: Mapping[str, Any]) -> str:
    """Return settings as a person would say them: ``cpo-s ω=2, cpo.training.steps=40``."""
    named = [f"{_short(name)}={value}" for name, value in differences.items()]
    more = len(named) - _SHOWN
    return ", ".join(named[:_SHOWN] + ([f"and {more} more"] if more > 0 else []))


def differences() -> dict[str, Any]:
    """Return the settings of the profile in force that are not those of the last commit."""
    file = paths.profile(read_switch(paths.SWITCH))
    before = git.answer("show", f"HEAD:./{file.as_posix()}")
    if before is None:
        return {}
    try:
        was = flat(yaml.safe_load(before) or {})
        now = flat(yaml.safe_load(file.read_bytes()) or {})
    except (yaml.YAMLError, AttributeError):
        return {}
    return {name: value for name, value in now.items() if was.get(name, ...) != value}


def of(profile: str, what: str, who: str | None = None) -> str:
    """Return the name of a run.

    Args:
        profile: Its name.
        what: What differs, or what was asked for; may be empty.
        who: Who asked; None: the user of this machine.
    """
    about = f"{profile}: {what}" if what else profile
    return f"{about} · by {who or user()}"


def user() -> str:
    """Return the name of the user of this machine; a container may have none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"


def _short(name: str) -> str:
    *above, last = name.split(".")
    last = _SYMBOLS.get(last, last)
    if name.startswith(_OBJECTIVES) and len(above) == 3:
        return f"{above[-1]} {last}"
    return ".".join([*above, last])
