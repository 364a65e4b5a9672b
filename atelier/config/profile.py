"""``params/<profile>.yaml`` as one frozen model, and how it is read and checked.

There are no defaults in code, except that the options of an objective are off: a value that is
missing in the file is reported, and so is an unknown key. Units stand at the field.
"""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError, model_validator

from atelier import reading
from atelier.config.annotation import AnnotateParams, SplitParams
from atelier.config.base import BaseParams
from atelier.config.evaluation import EvaluateParams, GenerateParams, ReportParams
from atelier.config.fields import Name, Params
from atelier.config.messages import explain
from atelier.config.model import ModelParams
from atelier.config.objectives import CPOParams, on_negative_branches
from atelier.config.study import StudyParams
from atelier.config.survey import SurveyParams
from atelier.config.training import Learns, SFTParams
from atelier.errors import ParamsError

Section = TypeVar("Section", bound="Params")


class Profile(Params):
    """One file of ``params/``: everything that a run can change."""

    model: ModelParams
    """The base model, its precision and the size of pictures."""
    base: BaseParams | None
    """How `atelier base` trains a small base from random weights; null: the base is downloaded.
    """
    annotate: AnnotateParams
    """Which pictures are used, who judges them, and by which criteria."""
    split: SplitParams
    """How the artworks are divided into training, validation and test."""
    sft: SFTParams
    """Training of θ1, which learns what the attributes look like."""
    cpo: CPOParams
    """Training of each θ, which learns from the targets that θ1 gives."""
    generate: GenerateParams
    """How each candidate paints the captions."""
    evaluate: EvaluateParams
    """What is measured of the painted pictures."""
    report: ReportParams
    """How results are shown, and which θ becomes champion."""
    survey: SurveyParams
    """The user study: how people compare painters."""

    @model_validator(mode="after")
    def _base_is_of_the_family(self) -> "Profile":
        if self.base is not None and self.base.network.kind != self.model.family:
            raise ValueError(
                f"base.network.kind should be model.family, {self.model.family!r}, "
                f"is {self.base.network.kind!r}"
            )
        return self

    @model_validator(mode="after")
    def _full_weights_can_learn(self) -> "Profile":
        full = [n for n, one in (("sft", self.sft), ("cpo", self.cpo)) if one.lora == "full"]
        if full and self.model.quantise is not None:
            raise ValueError(
                f"{full[0]}.lora 'full' trains the base's own weights, which model.quantise "
                f"{self.model.quantise!r} holds in too few bits; set it to null, or give a LoRA"
            )
        negative = on_negative_branches(self.cpo.objectives)
        if full and negative:
            raise ValueError(
                f"{full[0]}.lora 'full' does not go with cpo.objectives.{negative[0]}: its "
                "negative branch adds LoRAs, and full weights have none; use LoRAs, or remove "
                "the objective"
            )
        return self

    @model_validator(mode="after")
    def _copies_have_one_shape(self) -> "Profile":
        copies = [name for name, one in self.cpo.objectives.items() if one.init == "sft"]
        if copies and self.cpo.lora != self.sft.lora:
            raise ValueError(
                f"cpo.lora should be sft.lora for cpo.objectives.{copies[0]}, whose init 'sft' "
                f"begins as a copy of θ1; they are {_spelled(self.cpo.lora)} and "
                f"{_spelled(self.sft.lora)}"
            )
        return self

    @model_validator(mode="after")
    def _full_weights_begin_as_ours(self) -> "Profile":
        origins = {"sft.init": (self.sft.init, self.sft.lora)} | {
            f"cpo.objectives.{name}.init": (one.init, self.cpo.lora)
            for name, one in self.cpo.objectives.items()
        }
        for field, (init, lora) in origins.items():
            if lora == "full" and init not in {"base", "sft"}:
                raise ValueError(
                    f"{field} is the LoRA {init!r}, and {field.partition('.')[0]}.lora is "
                    "'full', whose weights begin as the base's; give `lora:` a rank, or set "
                    "init to 'base'"
                )
        return self

    @model_validator(mode="after")
    def _negative_branches_are_painted(self) -> "Profile":
        negative = on_negative_branches(self.cpo.objectives)
        if negative and self.generate.guidance <= 1:
            raise ValueError(
                f"generate.guidance should be above 1 for cpo.objectives.{negative[0]}: "
                "without guidance there is no negative branch to stand on; is "
                f"{self.generate.guidance:g}"
            )
        return self


def _spelled(lora: Learns) -> str:
    return lora if lora == "full" else f"{{{lora}}}"


class Switch(Params):
    """``params/profile.yaml``: which profile is in force."""

    profile: Name
    """Name of the profile in force, a file of params/ without its ending."""


def read_profile(path: Path) -> Profile:
    """Read and check one profile.

    Raises:
        ParamsError: The file is absent, is no YAML, or does not fit; all mistakes at once.
    """
    return _read(path, Profile)


def read_in_force(params: Path) -> Profile:
    """Read and check the profile that ``profile.yaml`` of the folder ``params`` names.

    Raises:
        ParamsError: As for ``read_profile``.
    """
    return read_profile(params / f"{read_switch(params / 'profile.yaml')}.yaml")


def read_study(path: Path) -> StudyParams:
    """Read and check ``params/study.yaml``.

    Raises:
        ParamsError: As for ``read_profile``.
    """
    return _read(path, StudyParams)


def read_switch(path: Path) -> str:
    """Return the name of the profile that ``params/profile.yaml`` puts in force.

    Raises:
        ParamsError: As for ``read_profile``.
    """
    return _read(path, Switch).profile


def _read(path: Path, section: type[Section]) -> Section:
    try:
        values = reading.yaml_values(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "nothing"
        raise ParamsError(
            f"{path} is absent; `profile:` in params/profile.yaml names a file of params/, "
            f"where there is: {there}"
        ) from None
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not YAML: {error}") from None
    except reading.UnreadableError as error:
        raise ParamsError(f"{path} is {error}") from None
    if not isinstance(values, dict):
        raise ParamsError(
            f"{path} should hold sections (`model:`, `sft:`, …), holds {reading.short(values)}"
        )
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{path} does not fit:\n" + explain(error)) from None
