"""What stands beside a number: which metric it is, by which weights, or why it is absent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class About:
    """Description of a score, shown with every number.

    Attributes:
        name: In params, files and MLflow.
        label: In tables that people read.
        says: What a higher or lower score says, in a sentence.
        scale: Formula, unit and usual range.
        preprocessing: How pixels and words reach the network.
        better: Which way is better.
        weights: Names in the manifest of weights; none: it needs no download.
        reads_prompt: Whether the caption moves the score.
        version: Of this implementation; another version forgets cached scores.
        digits: After the decimal point, in tables.
    """

    name: str
    label: str
    says: str
    scale: str
    preprocessing: str
    better: Literal["higher", "lower"]
    weights: tuple[str, ...]
    reads_prompt: bool
    version: str
    digits: int


@dataclass(frozen=True)
class Entry:
    """One metric of the profile, measured or not.

    Attributes:
        about: What it is.
        files: sha256 of each file of its weights, by path; empty if it needs none.
        dtype: Precision in which its network ran.
        unavailable: Why it was not measured, and the command that cures it; None: it was.
    """

    about: About
    files: Mapping[str, str]
    dtype: str
    unavailable: str | None
