"""``atelier settings explain|schema``: meanings of settings, and schemas for editors."""

import difflib
import json
from typing import Any

from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from atelier import atomic
from atelier.config import schema
from atelier.config.profile import Profile, read_profile, read_switch
from atelier.config.schema import Setting, Settings
from atelier.config.study import StudyParams
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError
from tasks.run import paths
from tasks.run.console import console, say

FILES: dict[str, tuple[type[BaseModel], str]] = {
    "profile": (Profile, "A profile of atelier: params/<profile>.yaml"),
    "criteria": (Tree, "A criteria tree of atelier: params/criteria/<file>.yaml"),
    "study": (StudyParams, "A study of methods of atelier: params/<study>.yaml"),
}


def texts() -> dict[str, str]:
    """Return the text of each schema file by its name in ``params/schema/``."""
    made = {name: schema.of(model, title) for name, (model, title) in FILES.items()}
    return {
        f"{name}.json": json.dumps(one, indent=1, ensure_ascii=False) + "\n"
        for name, one in made.items()
    }


def write() -> None:
    """Write ``params/schema/``."""
    for name, text in texts().items():
        atomic.write(paths.PARAMS / "schema" / name, text)
        say(f"wrote {paths.PARAMS / 'schema' / name}")


def explain(name: str, profile: str | None) -> None:
    """Print what a setting means, what it may be, and what it is in a profile.

    Args:
        name: Dotted; empty: the sections of a profile.
        profile: Its name; None: the one in force.

    Raises:
        ParamsError: There is no such setting, or the profile does not fit.
    """
    profile = profile or read_switch(paths.PARAMS / "profile.yaml")
    values = read_profile(paths.PARAMS / f"{profile}.yaml").model_dump(mode="json")
    settings = Settings(schema.of(Profile, FILES["profile"][1]))
    setting = settings.one(name, values)
    if setting is None:
        raise ParamsError(_unknown(name, settings, values))
    out, value = console(), at(values, name)
    inside = settings.below(name, values)
    if name:
        out.print(_about(setting, None if inside else spelled(value), profile))
    if len(inside) == 1:
        (one,) = inside.values()
        out.print(_table(one, value, profile))
    elif kinds := inside or settings.below(f"{name}.<name>"):
        out.print(_kinds(kinds, value, profile))


def at(values: Any, name: str) -> Any:
    """Return the value called ``name``; ``...`` where there is none."""
    for part in name.split(".") if name else ():
        values = values[part] if isinstance(values, dict) and part in values else ...
    return values


def spelled(value: Any) -> str:
    """Return a value as a profile has it; of a section, what it holds."""
    if value is ...:
        return "–"
    if isinstance(value, dict):
        return f"{{{', '.join(value)}}}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def meaning(setting: Setting) -> str:
    """Return meaning and unit in one line."""
    unit = setting.unit not in {"", "number"}
    return f"{setting.meaning} [{setting.unit}]" if unit else setting.meaning


def _about(setting: Setting, value: str | None, profile: str) -> Table:
    rows = {
        "meaning": setting.meaning,
        "type": setting.type,
        "unit": setting.unit.removeprefix("number"),
        "default": setting.default or "none: it has to be given",
        f"in {profile}": value,
    }
    table = Table(title=setting.name, title_justify="left", show_header=False, box=None)
    for row, text in rows.items():
        if text:
            table.add_row(row, escape(text))
    return table


def _table(settings: list[Setting], value: Any, profile: str) -> Table:
    table = Table("setting", f"in {profile}", "meaning", title="settings in it")
    for one in settings:
        last = one.name.rpartition(".")[2]
        table.add_row(last, escape(spelled(at(value, last))), escape(meaning(one)))
    return table


def _kinds(kinds: dict[str, list[Setting]], value: Any, profile: str) -> Table:
    """Each kind of section: where the profile has one, what it is, and what it holds."""
    table = Table("kind", f"in {profile}", "meaning", "settings", title="kinds of it")
    entries = value if isinstance(value, dict) else {}
    for kind, inside in kinds.items():
        tag = next((one for one in inside if one.type == f"`{kind}`"), None)
        key = tag.name.rpartition(".")[2] if tag else ""
        there = [name for name, entry in entries.items() if at(entry, key) == kind]
        names = ", ".join(one.name.rpartition(".")[2] for one in inside)
        table.add_row(kind, ", ".join(there), escape(tag.meaning) if tag else "", names)
    return table


def _unknown(name: str, settings: Settings, values: Any) -> str:
    """Return a message with the names that the place has, or the section above it."""
    above = name
    while above and settings.one(above, values) is None:
        above = above.rpartition(".")[0]
    kinds = settings.below(above, values).values()
    there = {one.name: None for inside in kinds for one in inside}
    near = difflib.get_close_matches(name, there, n=1)
    mend = f", did you mean {near[0]}?" if near else "."
    parts = ", ".join(one.rpartition(".")[2] for one in there) or "no settings"
    return f"{name} is no setting of a profile{mend} {above or 'A profile'} has: {parts}"
