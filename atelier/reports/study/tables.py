"""Tables of a study's document: cells and rows in Markdown."""

import statistics
from collections.abc import Sequence

from atelier.metrics.statistics import Interval

Cell = str | int | None | Interval | Sequence[float]
Row = Sequence[Cell]


def table(heading: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a table in Markdown."""
    lines = [heading, ["---"] * len(heading), *([cell(one) for one in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def cell(value: Cell) -> str:
    """Return an interval, the spread of several seeds' values, a word, or ``–`` for None."""
    if value is None:
        return "–"
    if isinstance(value, Interval):
        return interval(value)
    return str(value) if isinstance(value, str | int) else spread(value)


def interval(value: Interval) -> str:
    """Return an estimate with the ends of its interval."""
    return f"{value.estimate:.2f} [{value.low:.2f}, {value.high:.2f}]"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return mean, lowest and highest; one value alone; ``–`` where nothing was measured."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    ends = (statistics.mean(values), min(values), max(values))
    mean, low, high = (f"{value:.{digits}f}" for value in ends)
    return f"{mean} ({low}–{high})"
