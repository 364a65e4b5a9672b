"""A line of the table: what was measured, against what, and whether the goal was met."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Size = Literal["full", "tiny"]


@dataclass(frozen=True)
class Goal:
    """What a line should reach.

    Attributes:
        of: Whether the ratio is held to the bound, or the measured figure itself.
        sign: At most, or at least.
        bound: The ratio, or a figure in the unit of what was measured.
    """

    of: Literal["ratio", "figure"]
    sign: Literal["≤", "≥"]
    bound: float


@dataclass(frozen=True)
class Line:
    """One comparison.

    Attributes:
        section: Of the document, and of ``--only``.
        what: What was done.
        figure: What it took or gave.
        unit: Of figure and reference.
        against: What the reference is, done in the same run; empty where there is none.
        reference: Its figure; NaN where there is none.
        ratio: Figure over reference: a median over pairs where both were done by turns.
        goal: None for a line that is told and held to nothing.
        note: What a reader has to know beside it; empty for most.
    """

    section: str
    what: str
    figure: float
    unit: str
    against: str
    reference: float
    ratio: float
    goal: Goal | None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        value = self.ratio if self.goal.of == "ratio" else self.figure
        above = value >= self.goal.bound
        return above if self.goal.sign == "≥" else value <= self.goal.bound

    def cells(self) -> list[str]:
        """Return what, measured, against, ratio, goal and whether it is met, as text."""
        named = self.against
        if not math.isnan(self.reference):
            named += f": {quantity(self.reference, self.unit)}"
        return [
            self.what + (f" ({self.note})" if self.note else ""),
            quantity(self.figure, self.unit),
            named or "–",
            "–" if math.isnan(self.ratio) else f"{self.ratio:.4g}",
            self._goal(),
            {True: "met", False: "not met", None: "–"}[self.met],
        ]

    def _goal(self) -> str:
        if self.goal is None:
            return "–"
        unit = "" if self.goal.of == "ratio" else self.unit
        return f"{self.goal.sign} {quantity(self.goal.bound, unit)}"


HEADS = ("what", "measured", "against, in the same run", "ratio", "goal", "met")


def quantity(value: float, unit: str) -> str:
    """Return a figure of three digits with its unit."""
    if unit == "%":
        return f"{100 * value:.3g}%"
    plain = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{plain} {unit}".strip()


def figure_ratio(figure: float, reference: float) -> float:
    """Return their quotient; NaN without a reference."""
    return figure / reference if reference else math.nan


@dataclass(frozen=True)
class Turns:
    """Seconds of two pieces of work that were done by turns, so that load falls on both.

    Attributes:
        ours: Of each round.
        theirs: Of each round, right after ours.
    """

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def figure(self) -> float:
        """Median of ours."""
        return statistics.median(self.ours)

    @property
    def reference(self) -> float:
        """Median of theirs."""
        return statistics.median(self.theirs)

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))


def by_turns(
    ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int, warm_up: int = 1
) -> Turns:
    """Time two pieces of work A, B, A, B, …; what comes first is not counted."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(warm_up + rounds):
        for work, taken in zip((ours, theirs), found, strict=True):
            seconds = taking(work)
            if turn >= warm_up:
                taken.append(seconds)
    return Turns(*found)


def taking(work: Callable[[], object]) -> float:
    """Return the seconds that a piece of work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
