"""Validation errors as text: one line for each mistake, with field, rule and value."""

from typing import Any

from pydantic import ValidationError

from atelier import reading

_SHOWN = 40  # mistakes that one message lists
_SAMPLING = [
    "part",
    "prompts",
    "steps",
    "guidance",
    "distilled_guidance",
    "batch_images",
    "seed",
]
# Settings that stood elsewhere in earlier profiles, by their old names.
MOVED = {f"evaluate.{name}": f"generate.{name}" for name in _SAMPLING} | {
    "evaluate.grid_prompts": "report.grid_prompts"
}
_GONE = {"bootstrap": "is no setting any more, since intervals are not resampled; remove it"}


def explain(error: ValidationError) -> str:
    """The mistakes of a validation, a line each: field, what is allowed, what was there."""
    mistakes = error.errors(include_url=False, include_context=False)
    lines = [f"  {_field(one['loc'])}: {_reason(one)}" for one in mistakes[:_SHOWN]]
    more = len(mistakes) - _SHOWN
    return "\n".join([*lines, *[f"  and {more} more"] * (more > 0)])


def _field(location: tuple[int | str, ...]) -> str:
    parts = (str(part) for part in location)
    return (
        ".".join(
            part if part.isprintable() and len(part) <= 80 else reading.short(part)
            for part in parts
        )
        or "(whole file)"
    )


def _reason(mistake: Any) -> str:
    if mistake["type"] == "extra_forbidden" and (place := _field(mistake["loc"])) in MOVED:
        return f"is now {MOVED[place]}; move it there"
    if mistake["type"] == "extra_forbidden" and mistake["loc"][-1] in _GONE:
        return _GONE[mistake["loc"][-1]]
    text = mistake["msg"].removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    if mistake["type"] in {"missing", "value_error"}:
        return reading.clipped(str(text))
    return f"{text}, got {reading.short(mistake['input'])}"
