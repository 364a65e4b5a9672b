"""Drawings of numbers as inline SVG: small, the same bytes every time, in the page's colours.

Colours, fonts and dashes come from the page's style sheet by class, so that a chart follows
light, dark and print. Every chart says in words what it shows, for those who cannot see it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from atelier.evaluation.statistics import Interval

Points = Sequence[tuple[float, float]]
_WIDTH = 460  # user units; the style sheet scales it to the column
_CHARACTER = 6.4  # widest average of the labels' font, user units
_LINE = 15  # least distance between two labels


@dataclass(frozen=True)
class Row:
    """One line of ``intervals``, one point of ``tradeoff``."""

    label: str
    value: Interval
    strong: bool  # drawn in the accent colour


@dataclass(frozen=True)
class _Axis:
    """Maps values to user units."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where ``value`` lies, rounded so that files do not change by noise."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def intervals(rows: Sequence[Row], *, title: str, unit: str) -> Markup:
    """Return a dot with its interval for each row, on one axis from 0."""
    left = 14 + _CHARACTER * max(len(row.label) for row in rows)
    bottom = 14 + 28 * len(rows)
    axis = _Axis(0, max(_ticks(0, max(row.value.high for row in rows))), left, _WIDTH - 44)
    parts = [_vertical_grid(axis, 6, bottom), _text(axis.end, bottom + 32, unit, "end", "axis")]
    for place, row in enumerate(rows):
        y = 22 + 28 * place
        kind = "strong" if row.strong else "plain"
        low, middle, high = (
            axis.at(value) for value in (row.value.low, row.value.estimate, row.value.high)
        )
        parts += [
            _text(left - 10, y + 4, row.label, "end", f"label {kind}"),
            _tag("line", kind, x1=low, x2=high, y1=y, y2=y),
            _tag("circle", kind, cx=middle, cy=y, r=5),
            _text(high + 7, y + 4, f"{row.value.estimate:.2f}", "start", f"value {kind}"),
        ]
    said = "; ".join(
        f"{row.label} {row.value.estimate:.2f} ({row.value.low:.2f} to {row.value.high:.2f})"
        for row in rows
    )
    return _svg(parts, bottom + 40, f"{title}: {said}")


def tradeoff(
    rows: Sequence[Row], heights: Sequence[float], *, title: str, across: str, up: str
) -> Markup:
    """Return one labelled point a row: its estimate across, its height up; both from 0."""
    wide = _Axis(0, max(_ticks(0, max(row.value.high for row in rows))), 44, _WIDTH - 24)
    high = _Axis(0, max(_ticks(0, max(heights))), 262, 26)
    parts = [
        _vertical_grid(wide, 20, 262),
        _horizontal_grid(high, 44, _WIDTH - 24),
        _text(wide.end, 294, across, "end", "axis"),
        _text(8, 13, up, "start", "axis"),
    ]
    spots = [
        (wide.at(row.value.estimate), high.at(h)) for row, h in zip(rows, heights, strict=True)
    ]
    for row, (x, y), (label_y, anchor) in zip(rows, spots, _labels(spots), strict=True):
        kind = "strong" if row.strong else "plain"
        beside = x + 10 if anchor == "start" else x - 10
        parts += [
            _tag(
                "line",
                f"{kind} thin",
                x1=wide.at(row.value.low),
                x2=wide.at(row.value.high),
                y1=y,
                y2=y,
            ),
            _tag("circle", kind, cx=x, cy=y, r=5),
            _text(beside, label_y - 5, row.label, anchor, f"label {kind}"),
        ]
    said = "; ".join(
        f"{row.label} {row.value.estimate:.2f}, {height:.2f}"
        for row, height in zip(rows, heights, strict=True)
    )
    return _svg(parts, 302, f"{title} ({across}, {up}): {said}")


def lines(series: Mapping[str, Points], *, title: str, across: str) -> Markup:
    """Return curves on one pair of axes, told apart by colour and dash, named below."""
    drawn = {name: list(points) for name, points in series.items() if len(points) > 1}
    if not drawn:
        return Markup()
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    steps = _ticks(min(*ys, 0.0), max(ys))
    wide = _Axis(min(xs), max(xs), 48, _WIDTH - 14)
    high = _Axis(min(steps), max(steps), 178, 14)
    parts = [
        _horizontal_grid(high, wide.start, wide.end),
        *(
            _text(wide.at(x), 194, _short(x), anchor, "tick")
            for x, anchor in ((min(xs), "start"), (max(xs), "end"))
        ),
        _text((wide.start + wide.end) / 2, 194, across, "middle", "axis"),
    ]
    for place, (name, points) in enumerate(drawn.items()):
        path = " ".join(f"{wide.at(x)},{high.at(y)}" for x, y in points)
        x, y = 48 + place % 2 * 200, 216 + place // 2 * 18
        parts += [
            _tag("polyline", f"curve c{place % 6}", points=path),
            _tag("line", f"curve c{place % 6}", x1=x, x2=x + 24, y1=y - 4, y2=y - 4),
            _text(x + 30, y, name, "start", "label"),
        ]
    said = "; ".join(
        f"{name} from {_short(points[0][1])} to {_short(points[-1][1])}"
        for name, points in drawn.items()
    )
    return _svg(parts, 216 + (len(drawn) + 1) // 2 * 18, f"{title}: {said}")


def _labels(spots: Sequence[tuple[float, float]]) -> list[tuple[float, str]]:
    """Height and side of each point's label, so that none lies on another."""
    sides = ["start" if x < _WIDTH * 0.6 else "end" for x, _ in spots]
    heights = [y for _, y in spots]
    for side in ("start", "end"):
        above = -math.inf
        for place in sorted(
            (i for i, s in enumerate(sides) if s == side), key=lambda i: spots[i][1]
        ):
            heights[place] = max(spots[place][1], above + _LINE)
            above = heights[place]
    return list(zip(heights, sides, strict=True))


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers that enclose ``[low, high]``."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if span / (size * power) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [place * step for place in range(first, max(last, first + 1) + 1)]


def _vertical_grid(axis: _Axis, top: float, bottom: float) -> str:
    return "".join(
        _tag("line", "grid", x1=axis.at(tick), x2=axis.at(tick), y1=top, y2=bottom)
        + _text(axis.at(tick), bottom + 15, _short(tick), "middle", "tick")
        for tick in _ticks(axis.low, axis.high)
    )


def _horizontal_grid(axis: _Axis, left: float, right: float) -> str:
    return "".join(
        _tag("line", "grid", x1=left, x2=right, y1=axis.at(tick), y2=axis.at(tick))
        + _text(left - 6, axis.at(tick) + 4, _short(tick), "end", "tick")
        for tick in _ticks(axis.low, axis.high)
    )


def _short(value: float) -> str:
    return f"{value:.3g}"


def _tag(name: str, kind: str, **values: float | str) -> str:
    written = " ".join(f'{key}="{value}"' for key, value in values.items())
    return f'<{name} class="{kind}" {written}/>'


def _text(x: float, y: float, words: str, anchor: str, kind: str) -> str:
    place = f'x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def _svg(parts: Sequence[str], height: float, said: str) -> Markup:
    opening = (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {round(height)}" role="img" '
        f'aria-label="{escape(said)}">'
    )
    # Only `escape`d words and numbers were put into the parts.
    return Markup(opening + "".join(parts) + "</svg>")  # noqa: S704
