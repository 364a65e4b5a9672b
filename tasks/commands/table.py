"""``atelier results``: the results of ``report`` as a table."""

import csv
import json
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from atelier.errors import ArtifactError
from tasks.evaluation import candidates
from tasks.run import paths
from tasks.run.console import console
from tasks.tracking import connection


def run() -> None:
    """Print painters × #A_neg, FID and negatives by root; then the ways to see more.

    Raises:
        ArtifactError: There is no report yet.
    """
    if not paths.SUITES.is_file():
        raise ArtifactError(f"{paths.SUITES} is absent; run `dvc repro report`")
    metrics = json.loads(paths.SUITES.read_text(encoding="utf-8"))
    out = console()
    out.print(_table(metrics, _roots(paths.PLOTS / "roots.csv")))
    absent = [entry["label"] for entry in _suite().values() if not entry["available"]]
    if absent:
        said = f"Unavailable: {', '.join(absent)}; `atelier weights` says what they need"
        out.print(escape(said), style="dim", highlight=False)
    out.print(f"Report      {paths.PAGE}")
    out.print(f"MLflow      {connection.ui_command()}", soft_wrap=True)
    out.print("Prefect     atelier up", soft_wrap=True)


def _table(metrics: dict[str, dict[str, float]], roots: dict[str, dict[str, float]]) -> Table:
    names = list(next(iter(roots.values())))
    captions = next(iter(metrics.values())).get("captions")  # absent in older evaluations
    over = "" if captions is None else f" over {captions:.0f} captions"
    title = f"Negative attributes an image, with 95% interval{over}; lower is better"
    table = Table(title=title)
    table.add_column("painter")
    for heading in ("#A_neg", "FID", *names):
        table.add_column(heading, justify="right")
    shown = {name: row for name, row in metrics.items() if name != candidates.WITH_POSITIVES}
    least = min(row["negatives"] for row in shown.values())
    for name, row in shown.items():
        found = "{negatives:.2f} [{negatives_low:.2f}, {negatives_high:.2f}]".format(**row)
        distance = f"{row['fid']:.2f}" if "fid" in row else "–"
        by_root = [f"{roots[name][root]:.2f}" for root in names]
        style = "bold" if row["negatives"] == least else None
        table.add_row(name, escape(found), distance, *by_root, style=style)
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
