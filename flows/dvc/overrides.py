"""Overrides: settings changed for one run, typed as in params, for Prefect's forms.

The run works in a copy of the repository (``flows.dvc.workspace``), whose profile says them.
The user's files, dvc.lock and ``artifacts/`` stay as they are. A run with the same changes
finds the same checkpoints and the same runs in DVC's run cache.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from atelier import atomic
from atelier.config.fields import Count, Positive, Seed
from atelier.config.messages import MOVED, explain
from atelier.config.profile import Profile, read_profile, read_switch
from atelier.errors import ParamsError
from flows.dvc import run_form, workspace
from tasks.run import paths
from tasks.tracking import main_repository, run_names

_OBJECTIVES = "cpo.objectives."
_Kept = SkipJsonSchema[None]  # as the profile has it: an empty field of the form
Guidance = Annotated[float, Field(ge=1)]


class Changes(BaseModel):
    """What this run does differently from the profile; empty fields are as written there."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=run_form.fill)

    seed: Seed | _Kept = Field(None, description="of sft, of cpo and of what is painted")
    sft_steps: Count | _Kept = Field(None, description="optimizer steps of θ1")
    sft_learning_rate: Positive | _Kept = Field(None, description="of θ1")
    cpo_steps: Count | _Kept = Field(None, description="optimizer steps of each θ")
    prompts: Count | _Kept = Field(None, description="test captions that are painted")
    sampling_steps: Count | _Kept = Field(None, description="sampling steps of each picture")
    guidance: Guidance | _Kept = Field(None, description="classifier-free; 1 is off")
    objectives: dict[str, dict[str, Any]] = Field(
        {}, description='settings of one objective each, as {"cpo-s": {"omega": 2}}'
    )
    others: dict[str, Any] = Field(
        {}, description='any other setting by its name, as {"split.salt": "again"}'
    )

    def applied(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return a profile's values with the changes in place; not checked yet.

        Raises:
            ParamsError: A name in ``others`` is not a setting of the profile.
        """
        return changed(values, self._by_name(), "--set (changes.others)")

    def _by_name(self) -> dict[str, Any]:
        wanted = {
            name: value
            for field, names in run_form.SETTINGS.items()
            if (value := getattr(self, field)) is not None
            for name in names
        }
        return wanted | self._of_objectives() | self.others

    def _of_objectives(self) -> dict[str, Any]:
        return {
            f"{_OBJECTIVES}{objective}.{key}": value
            for objective, settings in self.objectives.items()
            for key, value in settings.items()
            if value is not None
        }

    def said(self) -> dict[str, Any]:
        """Return what a person wrote, by its name."""
        typed = self.model_dump(exclude_none=True, exclude={"objectives", "others"})
        return typed | self._of_objectives() | self.others


AS_WRITTEN = Changes()


def changed(
    values: Mapping[str, Any], changes: Mapping[str, Any], field: str
) -> dict[str, Any]:
    """Return a profile's values with other settings in place; not checked yet.

    Args:
        values: Of the profile.
        changes: Settings by dotted names.
        field: Where a person wrote the names, for the message.

    Raises:
        ParamsError: A name is not a setting of the profile.
    """
    # Through JSON: what YAML anchors share must not change together.
    copied: dict[str, Any] = json.loads(json.dumps(values))
    for name, value in changes.items():
        if name in MOVED:
            raise ParamsError(f"{field}: {name!r} is now {MOVED[name]!r}")
        *above, last = name.split(".")
        section: Any = copied
        for part in above:
            section = _below(section, part, f"{field}: {name!r}")
        _below(section, last, f"{field}: {name!r}")
        section[last] = value
    return copied


def parse(settings: Iterable[str]) -> Changes:
    """Return the changes that ``name=value`` of the command line asks for; values are YAML.

    Raises:
        ParamsError: One is not ``name=value``, or its value is no YAML.
    """
    others = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not name or not sign:
            raise ParamsError(f"--set {setting}: give name=value, as cpo.training.steps=40")
        try:
            others[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ParamsError(
                f"--set {setting}: {value!r} is not a YAML value; quote text with special "
                "characters"
            ) from None
    return Changes(others=others)


def named(changes: Changes) -> str:
    """Return what an experiment with these changes is called, as ``cpo-s-omega-2-seed-7``."""
    said = changes.said().items()
    text = ", ".join(f"{name.removeprefix(_OBJECTIVES)} {value}" for name, value in said)
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:60]


def described(changes: Changes) -> str:
    """Return what the changes are, as a person would say it: ``ω=2, cpo.training.steps=40``."""
    return run_names.said(changes.said())


def check(changes: Changes) -> None:
    """Prove that the profile in force fits with the changes; nothing is written.

    Raises:
        ParamsError: A name is no setting, or a value does not fit.
    """
    file = paths.profile(read_switch(paths.SWITCH))
    if changes != AS_WRITTEN:
        _changed(file, changes)


@contextlib.contextmanager
def in_force(changes: Changes) -> Iterator[None]:
    """Work where the profile's file says what ``changes`` say: in a copy, if there are any.

    Raises:
        ParamsError: The changed profile does not fit; nothing was run.
    """
    if changes == AS_WRITTEN:
        yield
        return
    file = paths.profile(read_switch(paths.SWITCH))
    values = _changed(file, changes)
    with workspace.entered():
        _write(file, values)
        os.environ[main_repository.EXPERIMENT] = named(changes)
        try:
            yield
        finally:
            del os.environ[main_repository.EXPERIMENT]


def _write(file: Path, values: Mapping[str, Any]) -> None:
    """Change the settings in a profile's file; its comments stay, unless anchors forbid it."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(file)) as content:
        _merge(content, values)
    # What shares an anchor changed together.
    if yaml.safe_load(file.read_bytes()) != values:
        atomic.write(file, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _merge(content: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(content.get(name), dict):
            _merge(content[name], value)
        elif name not in content or content[name] != value:
            content[name] = value


def _changed(file: Path, changes: Changes) -> dict[str, Any]:
    """Return the values of a profile's file with the changes, checked."""
    read_profile(file)
    values = changes.applied(yaml.safe_load(file.read_bytes()))
    try:
        Profile.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{file} with the changes does not fit:\n{explain(error)}") from None
    return values


def _below(section: Any, part: str, setting: str) -> Any:
    """Return what a section of the profile holds under ``part`` of a setting's name."""
    if isinstance(section, dict) and part in section:
        return section[part]
    known = ", ".join(section) if isinstance(section, dict) else "no section"
    raise ParamsError(
        f"{setting} is not a setting of the profile: in the place of {part!r} it has {known}"
    )
