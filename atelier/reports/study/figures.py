"""Figures of a study's document: PNG files, drawn by matplotlib."""

import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from atelier import atomic
from atelier.config.study import StudyParams
from atelier.metrics.statistics import Interval
from atelier.reports.study.design import MAIN, swept
from atelier.reports.study.results import Results

_NEGATIVES = "#A_neg, negative attributes of a picture"
_LABELS = 26  # of one column, at most
_CURVES = {"gradient_norm": "gradient norm", "drift": "drift, √mse to the base"}


def write(folder: Path, study: StudyParams, results: Results) -> None:
    """Write every figure for which there are results into ``folder``."""
    if MAIN in results.runs:
        _bars(folder / "methods.png", _means(results, MAIN, results.painters(MAIN)))
        _training(folder / "training.png", results.trained(MAIN))
        _tradeoff(folder / "tradeoff.png", study, results)
    if "sweep" in results.runs:
        _bars(folder / "sweep.png", _means(results, "sweep", list(swept(study))))


def _means(results: Results, kind: str, names: Sequence[str]) -> dict[str, Interval]:
    judge = results.judges(kind)[0]
    return {name: results.mean(kind, name, judge) for name in names}


def _bars(file: Path, values: Mapping[str, Interval]) -> None:
    """Save a figure of means with their intervals."""
    names = list(values)[::-1]
    shown = [values[name] for name in names]
    figure, axes = _drawing(7, 0.4 * len(names) + 1)
    ends = [[v.estimate - v.low for v in shown], [v.high - v.estimate for v in shown]]
    means = [value.estimate for value in shown]
    axes.errorbar(means, range(len(names)), xerr=ends, fmt="o", color="#1f4e79", capsize=3)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(_NEGATIVES)
    axes.grid(axis="y", visible=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    _save(figure, file)


def _tradeoff(file: Path, study: StudyParams, results: Results) -> None:
    """Save a figure of #A_neg against FID: methods, the sweep, options.

    Names stand at the edge, each with a line to its point: points lie too close for names.
    """
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, axes = _drawing(8, 5.2)
    points: list[tuple[float, float, str, str]] = []
    kinds = {MAIN: "o", "sweep": "s", "variants": "^"}
    for place, (kind, marker) in enumerate(kinds.items()):
        own = list(_points(kind, study, results))
        if own:
            ups, across, _ = zip(*own, strict=True)
            color = f"C{place}"
            axes.scatter(across, ups, marker=marker, color=color, label=kind, s=32, zorder=3)
            points += [(*point, color) for point in own]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    axes.set_xticks([t for t in (5, 10, 15, 20, 30, 50, 100, 200) if low <= t <= high])
    axes.margins(y=0.08)
    _name(axes, sorted(points))
    axes.set_xlabel("FID, logarithmic")
    axes.set_ylabel(_NEGATIVES)
    axes.legend(fontsize="small", loc="upper left")
    _save(figure, file)


def _points(
    kind: str, study: StudyParams, results: Results
) -> Iterator[tuple[float, float, str]]:
    """Yield #A_neg, FID and name of the painters of one kind that have both."""
    if kind not in results.runs:
        return
    painters = {MAIN: results.painters(kind), "sweep": swept(study), "variants": study.variants}
    judge = results.judges(kind)[0]
    for name in painters[kind]:
        fids = results.metric(kind, name, "fid")
        if fids:
            yield results.mean(kind, name, judge).estimate, statistics.mean(fids), name


def _name(axes: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the names of points, rising, at the right edge."""
    low, high = axes.get_ylim()
    heights = _apart([(up - low) / (high - low) for up, *_ in points], 1 / _LABELS)
    for (up, across, name, color), height in zip(points, heights, strict=True):
        axes.annotate(
            name, (across, up), (1.06, height), xycoords="data", textcoords="axes fraction",
            fontsize=8, va="center", color=color, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.35, "linewidth": 0.7},
        )  # fmt: skip


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Move rising heights as little as it takes for each to be ``least`` above the one before.

    With ``z_i = y_i - i d`` the moved heights are the nearest rising ``z``, plus ``i d``: an
    isotonic regression.
    """
    from scipy.optimize import isotonic_regression

    offsets = [place * least for place in range(len(heights))]
    bare = [height - offset for height, offset in zip(heights, offsets, strict=True)]
    return [z + o for z, o in zip(isotonic_regression(bare).x, offsets, strict=True)]


def _training(file: Path, trained: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Save a figure of gradient norms and drift over the steps, a line for each seed."""
    figure, both = _drawing(10, 3.6, columns=2)
    for axes, (name, title) in zip(both, _CURVES.items(), strict=True):
        for place, (method, runs) in enumerate(trained.items()):
            for number, curve in enumerate(run["curve"] for run in runs):
                label = method if number == 0 else None
                steps = curve["step"][: len(curve[name])]
                axes.plot(steps, curve[name], color=f"C{place}", lw=1, label=label)
        axes.set_xlabel("step")
        axes.set_title(title)
    both[0].set_yscale("log")
    both[1].legend(fontsize="small")
    _save(figure, file)


def _drawing(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return a figure and its axes, with a pale grid behind what is drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, subplot_kw={"axisbelow": True})
    for one in [axes] if columns == 1 else axes:
        one.grid(color="#dddddd")
    return figure, axes


def _save(figure: Any, file: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    atomic.write(file, content.getvalue())
