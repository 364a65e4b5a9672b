"""Charts as inline SVG: small, byte-for-byte reproducible, in the page's colors.

Colors, fonts and dashes come from the page's style sheet by class, so that a chart follows
light, dark and print. Every chart has a text description for screen readers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from atelier.metrics.statistics import Interval

Points = Sequence[tuple[float, float]]
_WIDTH = 460  # user units; the style sheet scales it to the column
_NARROW = 340  # the same, where several stand in a row
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

    ticks: Sequence[float]
    low: float
    high: float
    start: float
    end: float

    @classmethod
    def round(cls, low: float, high: float, start: float, end: float) -> "_Axis":
        """Return an axis that ends at round numbers around ``[low, high]``."""
        ticks = _ticks(low, high)
        return cls(ticks, ticks[0], ticks[-1], start, end)

    def at(self, value: float) -> float:
        """Return where ``value`` lies, rounded so that files do not change by noise."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def intervals(rows: Sequence[Row], *, title: str, unit: str, narrow: bool) -> Markup:
    """Return a dot with its interval for each row, on one axis from 0."""
    width = _NARROW if narrow else _WIDTH
    left = 14 + _CHARACTER * max(len(row.label) for row in rows)
    bottom = 14 + 28 * len(rows)
    axis = _Axis.round(0, max(row.value.high for row in rows), left, width - 40)
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
            _text(high + 9, y + 4, f"{row.value.estimate:.2f}", "start", f"value {kind}"),
        ]
    said = "; ".join(
        f"{row.label} {row.value.estimate:.2f} ({row.value.low:.2f} to {row.value.high:.2f})"
        for row in rows
    )
    return _svg(parts, width, bottom + 40, f"{title}: {said}")


def tradeoff(
    rows: Sequence[Row], heights: Sequence[float], *, title: str, across: str, up: str
) -> Markup:
    """Return one labelled point a row: its estimate across, its height up; both from 0."""
    names = _WIDTH - 12 - _CHARACTER * max(len(row.label) for row in rows)
    wide = _Axis.round(0, max(row.value.high for row in rows), 48, names - 26)
    high = _Axis.round(0, max(heights), 262, 26)
    parts = [
        _vertical_grid(wide, 26, 262),
        _horizontal_grid(high, wide.start, wide.end),
        _text(wide.end, 294, across, "end", "axis"),
        _text(8, 13, up, "start", "axis"),
    ]
    levels = [high.at(height) for height in heights]
    for row, y, beside in zip(rows, levels, _spread(levels, lowest=262), strict=True):
        kind = "strong" if row.strong else "plain"
        x, low, most = (
            wide.at(value) for value in (row.value.estimate, row.value.low, row.value.high)
        )
        parts += [
            _tag(
                "polyline", "leader", points=f"{x},{y} {wide.end + 4},{y} {names - 5},{beside}"
            ),
            _tag("line", f"{kind} thin", x1=low, x2=most, y1=y, y2=y),
            _tag("circle", kind, cx=x, cy=y, r=5),
            _text(names, beside + 4, row.label, "start", f"label {kind}"),
        ]
    said = "; ".join(
        f"{row.label} {row.value.estimate:.2f}, {height:.2f}"
        for row, height in zip(rows, heights, strict=True)
    )
    return _svg(parts, _WIDTH, 302, f"{title} ({across}, {up}): {said}")


def lines(series: Mapping[str, Points], *, title: str, across: str) -> Markup:
    """Return curves on one pair of axes, distinguished by color and dash, named below."""
    drawn = {name: list(points) for name, points in series.items() if len(points) > 1}
    if not drawn:
        return Markup()
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    wide = _Axis((), min(xs), max(xs), 44, _NARROW - 10)
    high = _Axis.round(min(*ys, 0.0), max(ys), 178, 14)
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
        parts.append(_tag("polyline", f"curve c{place % 6}", points=path))
        if len(drawn) == 1:
            continue  # the title says what it is
        x, y = 44 + place % 2 * 150, 216 + place // 2 * 18
        parts += [
            _tag("line", f"curve c{place % 6}", x1=x, x2=x + 24, y1=y - 4, y2=y - 4),
            _text(x + 30, y, name, "start", "label"),
        ]
    said = "; ".join(
        f"{name} from {_short(points[0][1])} to {_short(points[-1][1])}"
        for name, points in drawn.items()
    )
    legend = 0 if len(drawn) == 1 else 16 + (len(drawn) + 1) // 2 * 18
    return _svg(parts, _NARROW, 200 + legend, f"{title}: {said}")


def dose(
    points: Sequence[tuple[float, Interval]], names: Sequence[str], *, title: str, across: str
) -> Markup:
    """Return what one number does: a dot with its interval at each, joined, from 0 upwards.

    The models' names are in the text description; next to the dots they would overlap.
    """
    xs = [x for x, _ in points]
    wide = _Axis.round(min(0.0, *xs), max(xs), 44, _NARROW - 14)
    high = _Axis.round(0, max(value.high for _, value in points), 178, 22)
    parts = [
        _horizontal_grid(high, wide.start, wide.end),
        *(_text(wide.at(x), 194, _short(x), "middle", "tick") for x in sorted(set(xs))),
        _text((wide.start + wide.end) / 2, 212, across, "middle", "axis"),
    ]
    path = " ".join(f"{wide.at(x)},{high.at(value.estimate)}" for x, value in points)
    parts.append(_tag("polyline", "curve c0", points=path))
    for x, value in points:
        at, low, most = wide.at(x), high.at(value.low), high.at(value.high)
        parts += [
            _tag("line", "strong thin", x1=at, x2=at, y1=low, y2=most),
            _tag("circle", "strong", cx=at, cy=high.at(value.estimate), r=4.5),
            _text(at, most - 7, f"{value.estimate:.2f}", "middle", "label"),
        ]
    said = "; ".join(
        f"{name} at {_short(x)}: {value.estimate:.2f} ({value.low:.2f} to {value.high:.2f})"
        for (x, value), name in zip(points, names, strict=True)
    )
    return _svg(parts, _NARROW, 220, f"{title}: {said}")


def _spread(heights: Sequence[float], *, lowest: float) -> list[float]:
    """Move labels apart until none lies on another, keeping their order from top to bottom.

    They move down, and up again where they would leave the chart: y grows downwards.
    """
    spread = list(heights)
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    above = -math.inf
    for place in order:
        spread[place] = above = max(heights[place], above + _LINE)
    below = lowest + _LINE
    for place in reversed(order):
        spread[place] = below = min(spread[place], below - _LINE)
    return [round(height, 1) for height in spread]


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers that enclose ``[low, high]``."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if span / (size * power) <= 5)
    # 0.3 / 0.1 is a little more than 3.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, max(last, first + 1) + 1)]


def _vertical_grid(axis: _Axis, top: float, bottom: float) -> str:
    return "".join(
        _tag("line", "grid", x1=axis.at(tick), x2=axis.at(tick), y1=top, y2=bottom)
        + _text(axis.at(tick), bottom + 15, _short(tick), "middle", "tick")
        for tick in axis.ticks
    )


def _horizontal_grid(axis: _Axis, left: float, right: float) -> str:
    return "".join(
        _tag("line", "grid", x1=left, x2=right, y1=axis.at(tick), y2=axis.at(tick))
        + _text(left - 6, axis.at(tick) + 4, _short(tick), "end", "tick")
        for tick in axis.ticks
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _tag(name: str, kind: str, **values: float | str) -> str:
    written = " ".join(f'{key}="{value}"' for key, value in values.items())
    return f'<{name} class="{kind}" {written}/>'


def _text(x: float, y: float, words: str, anchor: str, kind: str) -> str:
    place = f'x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def _svg(parts: Sequence[str], width: int, height: float, said: str) -> Markup:
    opening = (
        f'<svg class="chart" viewBox="0 0 {width} {round(height)}" role="img" '
        f'aria-label="{escape(said)}">'
    )
    # Only `escape`d words and numbers were put into the parts.
    return Markup(opening + "".join(parts) + "</svg>")  # noqa: S704
