"""Figures of a study's document: PNG files, drawn by matplotlib, and a grid of pictures."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from atelier import atomic
from atelier.config.study import StudyParams
from atelier.reports import image_grids
from atelier.reports.study import claims, design
from atelier.reports.study.design import Entrant
from atelier.reports.study.fronts import Against, Fronts, undominated
from atelier.reports.study.results import Results

COLUMNS = 6  # pictures of each painter in the grid
_CURVES = {"gradient_norm": "gradient norm", "drift": "drift, √mse to the base"}
_AXES: dict[Against, str] = {"fid": "FID, logarithmic", "vendi": "diversity (Vendi)"}
_FIXED = {"theta1": "θ1", "theta1+pos": "θ1, told"}
_MARKERS = "osD^v<>PX*hpd"


def write(
    folder: Path,
    study: StudyParams,
    chosen: Mapping[Entrant, str],
    results: Results,
    kept: Path,
) -> None:
    """Write every figure into ``folder``.

    Args:
        folder: Of the document's figures.
        study: What params/NAME.yaml holds.
        chosen: The painter of each entrant.
        results: What was run.
        kept: Where each experiment's first pictures lie, by experiment and painter.
    """
    _fronts(folder / "fronts.png", Fronts(study, results), list(chosen))
    _training(folder / "training.png", chosen, results)
    _pictures((folder if study.grid else kept) / "pictures.png", study, chosen, results, kept)


def _fronts(file: Path, fronts: Fronts, entrants: Sequence[Entrant]) -> None:
    """Save a figure of all fronts: a row for each judge, against FID and diversity."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    judges = fronts.results.judges()
    figure, every = _drawing(11, 4.6 * len(judges), rows=len(judges), columns=2)
    for axes_row, judge in zip(np.atleast_2d(every), judges, strict=True):
        for axes, against in zip(axes_row, _AXES, strict=True):
            _box(axes, fronts, judge, against)
            for place, one in enumerate(entrants):
                _front(axes, fronts, one, judge, against, place)
            _known(axes, fronts, judge, against)
            axes.set_xlabel(_AXES[against])
            axes.set_ylabel(f"#A_neg by {judge}")
            axes.set_ylim(bottom=0)
            if against == "fid":
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(ScalarFormatter())
                axes.xaxis.set_minor_formatter(NullFormatter())
                low, high = axes.get_xlim()
                ticks = (5, 8, 10, 12, 15, 20, 30, 50, 100, 200)
                axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    handles, labels = np.atleast_2d(every)[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    _save(figure, file)


def _front(
    axes: Any, fronts: Fronts, entrant: Entrant, judge: str, against: Against, place: int
) -> None:
    """Draw the points of an entrant, and a line through those that none of its own beats."""
    points = fronts.points(entrant, judge, against)
    sign = 1 if against == "fid" else -1
    edge = [(sign * x, y) for x, y in undominated([(sign * x, y) for x, y in points])]
    own = fronts.study.proposed
    style = {"color": _color(place), "marker": _MARKERS[place % len(_MARKERS)]}
    across, up = zip(*points, strict=True)
    loud = entrant.method in own
    axes.scatter(across, up, s=38 if loud else 22, zorder=4 if loud else 3, **style)
    across, up = zip(*edge, strict=True)
    axes.plot(
        across, up, lw=2.2 if loud else 1, ls="-" if entrant.price == 1 else "--",
        label=entrant.name, **style,
    )  # fmt: skip


def _color(place: int) -> str:
    """Return a color of its own for each of the first fourteen entrants."""
    every = [f"C{number}" for number in range(10)]
    return [*every, "navy", "gold", "darkolivegreen", "deeppink"][place % 14]


def _box(axes: Any, fronts: Fronts, judge: str, against: Against) -> None:
    """Shade the box in which fronts are measured."""
    up, across = fronts.box(judge, against)
    axes.axhline(up, color="#999999", lw=0.8, ls=":")
    axes.axvline(abs(across), color="#999999", lw=0.8, ls=":")


def _known(axes: Any, fronts: Fronts, judge: str, against: Against) -> None:
    """Name θ1, θ1 told, and both guided where they lie."""
    for way in ("alone", "guided"):
        for painter, label in _FIXED.items():
            if way in fronts.results.runs:
                x, y = (fronts.at(way, painter, measure) for measure in (against, judge))
                axes.scatter([x], [y], color="black", marker="x", zorder=5)
                said = label if way == "alone" else f"{label}, guided"
                axes.annotate(said, (x, y), (4, 4), textcoords="offset points", fontsize=8)


def _training(file: Path, chosen: Mapping[Entrant, str], results: Results) -> None:
    """Save a figure of gradient norms and drift over the steps, a line for each seed."""
    figure, both = _drawing(10, 4.2, columns=2)
    for axes, (name, title) in zip(both, _CURVES.items(), strict=True):
        for place, (one, painter) in enumerate(chosen.items()):
            runs = results.trained(one.sampled, design.training(painter))
            for number, run in enumerate(runs):
                curve = run["curve"]
                label = one.name if number == 0 else None
                steps = curve["step"][: len(curve[name])]
                axes.plot(steps, curve[name], color=_color(place), lw=1, label=label)
        axes.set_xlabel("step")
        axes.set_title(title)
    both[0].set_yscale("log")
    figure.legend(*both[1].get_legend_handles_labels(), loc="outside right upper",
                  fontsize="small")  # fmt: skip
    _save(figure, file)


def _pictures(
    file: Path,
    study: StudyParams,
    chosen: Mapping[Entrant, str],
    results: Results,
    kept: Path,
) -> None:
    """Save a grid of the first captions' pictures: base, θ1, what was chosen, L_CPO's ends."""
    seed = study.seeds[0]
    known = [
        (way, painter, label if way == "alone" else f"{label}, guided")
        for way in ("alone", "guided")
        for painter, label in {"base": "base", **_FIXED}.items()
        if way in results.runs
    ]
    own = [(one.sampled, painter, one.name) for one, painter in chosen.items()]
    own += [
        (way, name, f"{name}, last step")
        for way, name in claims.unstable(study)
        if name not in chosen.values()
    ]
    rows = {}
    for way, painter, label in [*known, *own]:
        files = sorted((kept / f"{way}-{seed}" / painter).glob("*.png"))[:COLUMNS]
        if files:
            rows[label] = [np.asarray(Image.open(one).convert("RGB")) for one in files]
    if rows:
        count = len(next(iter(rows.values())))
        captions = results.first(known[0][0]).captions[:count]
        grid = image_grids.labelled(rows, captions)
        content = io.BytesIO()
        grid.quantize(192).save(content, "PNG", optimize=True)  # a third of the bytes
        atomic.write(file, content.getvalue())


def _drawing(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes, with a pale grid behind what is drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, subplot_kw={"axisbelow": True})
    for one in np.ravel(axes):
        one.grid(color="#dddddd")
    return figure, axes


def _save(figure: Any, file: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    atomic.write(file, content.getvalue())
