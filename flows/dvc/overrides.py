"""Overrides: settings changed for one run, typed as in params, for Prefect's forms.

The run sees them in ``params/<profile>.yaml``, where every stage and DVC read; afterwards the
file is what it was, byte for byte, also if the run was killed in between: then the next one
puts it back first. A run with the same changes finds the same checkpoints and the same runs in
DVC's run cache.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atelier import atomic
from atelier.config.fields import Count, NonNegative, Positive, Seed
from atelier.config.messages import MOVED, explain
from atelier.config.profile import Profile, read_profile, read_switch
from atelier.errors import ParamsError
from tasks.run import paths

_KEPT = Path(".dvc/tmp/atelier/params")  # what a changed file was before


class Changes(BaseModel):
    """What this run does differently from the profile; empty fields are as written there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Seed | None = Field(None, description="of sft, of cpo and of what is painted")
    sft_steps: Count | None = Field(None, description="optimizer steps of θ1")
    sft_learning_rate: Positive | None = Field(None, description="of θ1")
    cpo_steps: Count | None = Field(None, description="optimizer steps of each θ")
    cpo_learning_rate: Positive | None = Field(None, description="of each objective")
    omega: NonNegative | None = Field(None, description="ω of each objective that has one")
    beta: Positive | None = Field(None, description="β of each objective that has one")
    prompts: Count | None = Field(None, description="test captions that are painted")
    sampling_steps: Count | None = Field(None, description="sampling steps of what is painted")
    guidance: float | None = Field(None, ge=1, description="classifier-free guidance; 1 is off")
    others: dict[str, Any] = Field(
        {}, description='any other setting by its name, as {"split.salt": "again"}'
    )

    def applied(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return a profile's values with the changes in place; not checked yet.

        Raises:
            ParamsError: A name in ``others`` is not a setting of the profile.
        """
        return changed(values, self._by_name(values), "--set (changes.others)")

    def _by_name(self, values: dict[str, Any]) -> dict[str, Any]:
        objectives: dict[str, dict[str, Any]] = values["cpo"]["objectives"]
        wanted: dict[str, Any] = {
            "sft.training.seed": self.seed,
            "cpo.training.seed": self.seed,
            "generate.seed": self.seed,
            "sft.training.steps": self.sft_steps,
            "sft.learning_rate": self.sft_learning_rate,
            "cpo.training.steps": self.cpo_steps,
            "generate.prompts": self.prompts,
            "generate.steps": self.sampling_steps,
            "generate.guidance": self.guidance,
        }
        for name, objective in objectives.items():
            where = f"cpo.objectives.{name}"
            wanted[f"{where}.learning_rate"] = self.cpo_learning_rate
            wanted |= {
                f"{where}.{key}": getattr(self, key)
                for key in ("omega", "beta")
                if key in objective
            }
        return {
            name: value for name, value in wanted.items() if value is not None
        } | self.others


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
    """Let the profile's file say what ``changes`` say, for as long as this lasts.

    Raises:
        ParamsError: The changed profile does not fit; nothing was run.
    """
    put_back()
    if changes == AS_WRITTEN:
        yield
        return
    file = paths.profile(read_switch(paths.SWITCH))
    before = file.read_bytes()
    values = _changed(file, changes)
    atomic.write(_KEPT / file.name, before)
    atomic.write(file, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    try:
        yield
    finally:
        put_back()


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


def put_back() -> None:
    """Restore the files that a killed run left changed."""
    for kept in sorted(_KEPT.glob("*.yaml")):
        atomic.write(paths.PARAMS / kept.name, kept.read_bytes())
        kept.unlink()
