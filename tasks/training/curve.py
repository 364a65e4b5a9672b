"""Training curves: one line per report, kept through interruptions, for ``dvc plots``."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from atelier import atomic
from atelier.reporting import Report
from tasks.tracking.mlflow_runs import StageRun


class Curve:
    """Takes a trainer's reports; hands them to the bar, to MLflow, and keeps them on disk."""

    def __init__(self, folder: Path, bar: Report, tracked: StageRun) -> None:
        self._file = folder / "curve.jsonl"
        self._bar, self._tracked = bar, tracked
        self._cut = False  # whether the last line has no end: the next one would be lost in it
        self._rows = self._kept()

    def report(self, step: int, values: Mapping[str, float], told: Mapping[str, float]) -> None:
        """Show progress; keep and log ``values`` where there are any, and log ``told``.

        What is only told (speed, memory) differs from run to run and is kept nowhere.
        """
        self._bar(step, values)
        if not values:
            return
        self._rows[step] = dict(values)
        with atomic.clear_disk_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n" * self._cut + json.dumps({"step": step, **values}) + "\n")
        self._cut = False
        self._tracked.metrics({**values, **told}, step=step)

    def write(self, path: Path) -> None:
        """Write all rows as TSV, a column a value."""
        columns = ["step", *dict.fromkeys(k for row in self._rows.values() for k in row)]
        lines = ["\t".join(columns)]
        for step, row in sorted(self._rows.items()):
            cells = [f"{row[c]:.6g}" if c in row else "" for c in columns[1:]]
            lines.append("\t".join([str(step), *cells]))
        atomic.write(path, "\n".join(lines) + "\n")

    def rows(self, before: float = math.inf) -> list[dict[str, float]]:
        """Return the rows of the steps before ``before``, in their order."""
        return [row for step, row in sorted(self._rows.items()) if step < before]

    def last(self) -> dict[str, float]:
        """Return the values of the last report."""
        return self.rows()[-1]

    def _kept(self) -> dict[int, dict[str, float]]:
        """Rows of an interrupted run; a step that is trained again overwrites its row."""
        rows: dict[int, dict[str, float]] = {}
        if not self._file.is_file():
            return rows
        text = self._file.read_text(encoding="utf-8", errors="replace")
        self._cut = not text.endswith("\n")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                rows[int(row.pop("step"))] = row
            except (ValueError, TypeError, AttributeError, KeyError):
                continue  # cut by a crash; its step is trained and told again
        return rows
