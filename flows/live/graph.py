"""Drawing of the DAG: a box for each stage, from left to right, in the color of its state."""

from collections.abc import Sequence

import networkx as nx
from markupsafe import Markup, escape

from flows.live.runs import StageView

_WIDE, _HIGH = 104, 34  # of a box, user units
_ACROSS, _DOWN = 26, 16  # between boxes
_SCALE = 1.2  # pixels of a user unit; a narrow page scrolls


def drawn(stages: Sequence[StageView]) -> Markup:
    """Return the DAG as SVG; each box leads to its stage in the list."""
    names = {one.name for one in stages}
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from((need, one.name) for one in stages for need in one.after)
    place: dict[str, tuple[int, int]] = {}
    columns = [sorted(column) for column in nx.topological_generations(graph)]
    for across, column in enumerate(columns):
        for down, name in enumerate(column):
            place[name] = (across * (_WIDE + _ACROSS) + 1, down * (_HIGH + _DOWN) + 1)
    width = len(columns) * (_WIDE + _ACROSS) - _ACROSS + 2
    height = max((len(column) for column in columns), default=1) * (_HIGH + _DOWN) - _DOWN + 2
    parts = [_edge(place[need], place[name]) for need, name in sorted(graph.edges)]
    parts += [_box(one, *place[one.name]) for one in stages]
    said = "; ".join(f"{one.name}: {one.state}" for one in stages)
    opening = (
        f'<svg class="dag" width="{round(_SCALE * width)}" height="{round(_SCALE * height)}" '
        f'viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Stages: {escape(said)}">'
    )
    # Only `escape`d words and numbers were put into the parts.
    return Markup(opening + "".join(parts) + "</svg>")  # noqa: S704


def _box(stage: StageView, x: int, y: int) -> str:
    kind, name = stage.state.replace(" ", "-"), escape(stage.name)
    return (
        f'<a href="#stage-{name}" tabindex="-1"><g class="{kind}">'
        f'<rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="6"/>'
        f'<text x="{x + _WIDE / 2}" y="{y + 21}" text-anchor="middle">{name}</text></g></a>'
    )


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = start[0] + _WIDE, start[1] + _HIGH / 2
    to, down = end[0], end[1] + _HIGH / 2
    middle = (x + to) / 2
    return f'<path d="M{x} {y}C{middle} {y} {middle} {down} {to} {down}"/>'
