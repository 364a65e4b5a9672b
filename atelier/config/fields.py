"""Field types that all sections of a profile share: bounds, strictness, safe paths."""

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from atelier import reading


def _no_truth(value: object) -> object:
    """Refuse yes and no, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"should be a number, got {value!r}")
    return value


def _inside(path: str) -> str:
    """Refuse a path that leads out of the folder that it is looked for in."""
    parts = PurePosixPath(path).parts
    if not path or "\\" in path or "\0" in path or ".." in parts or parts[:1] == ("/",):
        raise ValueError(
            f"should be a path inside its folder, without a leading / and without .., "
            f"got {reading.short(path)}"
        )
    return path


def _origin(place: str) -> str:
    """Refuse an origin of weights that is no state of ours and no LoRA in ``loras/``."""
    if place in {"base", "sft"} or (place.startswith("loras/") and len(place) > len("loras/")):
        return _inside(place)
    raise ValueError(
        "should be 'base', 'sft' (of cpo.objectives alone), or a LoRA's file or folder in "
        f"loras/, as loras/mine.safetensors, got {reading.short(place)}"
    )


Integer = Annotated[int, Field(strict=True)]


Real = Annotated[float, BeforeValidator(_no_truth)]


# Bounds come before the validator, so that the JSON schema (and so a form) shows them.
Positive = Annotated[float, Field(gt=0), BeforeValidator(_no_truth)]


NonNegative = Annotated[float, Field(ge=0), BeforeValidator(_no_truth)]


Count = Annotated[Integer, Field(gt=0)]


Whole = Annotated[Integer, Field(ge=0)]


Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_no_truth)]


Inside = Annotated[str, AfterValidator(_inside)]


Origin = Annotated[str, AfterValidator(_origin)]  # base, sft, or a path in loras/


Seed = Annotated[Integer, Field(ge=0, lt=2**32)]


class Params(BaseModel):
    """Parent of the sections: unknown keys and endless numbers refused, values immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
