"""``atelier results``: the results of ``report`` as a table."""

import csv
import json
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from atelier.errors import ArtifactError
from tasks.run import paths
from tasks.run.console import console
from tasks.tracking import connection

# Heading, key of a metric, digits.
_COLUMNS = (
    ("passes a step", "passes", 0),
    ("#A_neg", "negatives", 2),
    ("second judge", "negatives_independent", 2),
    ("FID", "fid", 2),
    ("KID", "kid", 4),
    ("diversity", "vendi", 1),
)


def run() -> None:
    """Print each painter's #A_neg, FID and diversity, then its #A_neg by root.

    Raises:
        ArtifactError: There is no report yet.
    """
    if not paths.SUITES.is_file():
        raise ArtifactError(f"{paths.SUITES} is absent; run `dvc repro report`")
    metrics = json.loads(paths.SUITES.read_text(encoding="utf-8"))
    out = console()
    out.print(_results(metrics))
    out.print(_by_root(_roots(paths.PLOTS / "roots.csv"), metrics))
    absent = [entry["label"] for entry in _suite().values() if not entry["available"]]
    if absent:
        said = f"Unavailable: {', '.join(absent)}; `atelier weights` says what they need"
        out.print(escape(said), style="dim", highlight=False)
    out.print(f"Report      {paths.PAGE}")
    out.print(f"MLflow      {connection.ui_command()}", soft_wrap=True)
    out.print("Prefect     atelier up", soft_wrap=True)


def _results(metrics: dict[str, dict[str, float]]) -> Table:
    first = next(iter(metrics.values()))
    captions = first.get("captions")  # absent in older evaluations
    over = "" if captions is None else f" over {captions:.0f} captions"
    table = Table(
        title=f"Negative attributes per image, with 95% interval{over}; lower is better"
    )
    table.add_column("painter")
    shown = [
        (heading, key, digits)
        for heading, key, digits in _COLUMNS
        if any(key in row for row in metrics.values())
    ]
    for heading, _, _ in shown:
        table.add_column(heading, justify="right")
    least = min(row["negatives"] for row in metrics.values())
    for name, row in metrics.items():
        cells = [f"{row[key]:.{digits}f}" if key in row else "–" for _, key, digits in shown]
        interval = " [{negatives_low:.2f}, {negatives_high:.2f}]".format(**row)
        cells = [
            escape(cell + interval) if key == "negatives" else cell
            for cell, (_, key, _) in zip(cells, shown, strict=True)
        ]
        table.add_row(name, *cells, style="bold" if row["negatives"] == least else None)
    return table


def _by_root(roots: dict[str, dict[str, float]], metrics: dict[str, dict[str, float]]) -> Table:
    names = list(next(iter(roots.values())))
    table = Table(title="The same by root of the criteria")
    table.add_column("painter")
    for heading in names:
        table.add_column(heading, justify="right")
    for name in metrics:
        table.add_row(name, *(f"{roots[name][root]:.2f}" for root in names))
    return table


def _suite() -> dict[str, dict[str, Any]]:
    """What was asked for, measured or not; of older evaluations nothing is known."""
    if not paths.SUITE.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(paths.SUITE.read_text(encoding="utf-8"))
    return found


def _roots(file: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    with file.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            found.setdefault(row["painter"], {})[row["root"]] = float(row["negatives"])
    return found
