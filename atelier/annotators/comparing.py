"""Comparisons of two pictures: which shows more of the good pole, asked in both orders.

A judge that prefers what it sees first answers "first" in both orders and so contradicts
itself; ``settled`` keeps only what both orders say of the same picture. Two answers of
"neither" are a tie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from atelier.reporting import Report

Choice = Literal["first", "second", "neither"]
CHOICES: tuple[Choice, Choice, Choice] = ("first", "second", "neither")
_TURNED: Mapping[Choice, Choice] = {
    "first": "second",
    "second": "first",
    "neither": "neither",
}


@dataclass(frozen=True)
class Compared:
    """What was said of two pictures; the second order's answers are turned back.

    Attributes:
        forth: Which of the two shows more of the good pole, by criterion.
        back: The same, when the second picture was shown first.
    """

    forth: Mapping[str, Choice]
    back: Mapping[str, Choice]

    @property
    def settled(self) -> dict[str, Choice]:
        """What both orders say alike; a contradiction has no entry."""
        return {
            path: choice for path, choice in self.forth.items() if self.back.get(path) == choice
        }


def turned(said: Mapping[str, Choice]) -> dict[str, Choice]:
    """Return answers about (second, first) as answers about (first, second)."""
    return {path: _TURNED[choice] for path, choice in said.items()}


class Comparer(Protocol):
    """A judge that compares two pictures."""

    @property
    def name(self) -> str:
        """Name and version."""

    def compare_many(
        self, pairs: Sequence[tuple[Path, Path]], criteria: Sequence[str], report: Report
    ) -> list[Compared | None]:
        """Compare pictures two by two, in both orders.

        Args:
            pairs: Files of two pictures.
            criteria: Paths to compare by; of some it may say nothing.
            report: Called with the number of pairs done.

        Returns:
            Of each pair what was said; None where there is no usable answer.

        Raises:
            AtelierError: No pair can be compared.
        """
