"""Run form: what Prefect's page shows for the settings that a run may change.

Each field shows the value in force, and stays empty unless a person types another one. Each
objective of the profile has fields of its own. Prefect keeps a form as the JSON schema of a
deployment, so ``prefect_setup`` makes the forms new when a run finds that the profile changed.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from atelier.config.profile import Profile, read_in_force
from atelier.errors import AtelierError
from tasks.run import paths

# Fields of ``overrides.Changes`` that have names of their own, and the settings that they set.
SETTINGS = {
    "seed": ("sft.training.seed", "cpo.training.seed", "generate.seed"),
    "sft_steps": ("sft.training.steps",),
    "sft_learning_rate": ("sft.learning_rate",),
    "cpo_steps": ("cpo.training.steps",),
    "prompts": ("generate.prompts",),
    "sampling_steps": ("generate.steps",),
    "guidance": ("generate.guidance",),
}
_SIMPLE = {"number", "integer", "string", "boolean"}


def fill(schema: dict[str, Any]) -> None:
    """Put the values in force into the JSON schema of ``Changes``; without a profile, none."""
    try:
        profile = read_in_force(paths.PARAMS)
    except (AtelierError, OSError):
        return  # what is wrong with it is reported by the run
    properties = schema["properties"]
    for field, names in SETTINGS.items():
        found = {_said(_value(profile, name)) for name in names}
        _show(properties[field], " and ".join(sorted(found)))
        if len(names) == 1:
            properties[field]["title"] = names[0]
    properties["objectives"] = {
        "type": "object",
        "title": "cpo.objectives",
        "description": "settings of one objective each",
        "properties": dict(_objectives(profile)),
    }


def _objectives(profile: Profile) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, objective in profile.cpo.objectives.items():
        known = type(objective).model_json_schema()["properties"]
        fields: dict[str, Any] = {}
        for setting, value in reversed(objective.model_dump().items()):  # its own come last
            field = _field(known[setting], value)
            if field is not None:
                fields[setting] = field | {"title": setting, "position": len(fields)}
        yield name, {"type": "object", "title": name, "properties": fields}


def _field(known: Mapping[str, Any], value: Any) -> dict[str, Any] | None:
    """Return the field of an objective's setting; None if it is not one plain value."""
    kinds = [one for one in known.get("anyOf", [known]) if one.get("type") in _SIMPLE]
    if not kinds or "const" in kinds[0]:
        return None
    field = dict(kinds[0])
    _show(field, _said(value))
    return field


def _show(field: dict[str, Any], value: str) -> None:
    """Say the value in force; as a default, the form would send it later, when it is old."""
    field.pop("default", None)
    about = field.get("description")
    field["description"] = f"{about}; now **{value}**" if about else f"now **{value}**"


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(profile: Profile, name: str) -> Any:
    found: Any = profile
    for part in name.split("."):
        found = getattr(found, part)
    return found
