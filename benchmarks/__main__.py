"""``python -m benchmarks``: every line of docs/performance.md, measured, printed and written.

A quarter of an hour on two cores. Each figure stands beside something named that was done in
the same run, by turns where both take long enough; the table says which goals were met, what
the document said before, and which goals were met then and are missed now. Nothing here is a
test: a busy machine moves the figures, so the load stands with them.
"""

import argparse
import datetime
import importlib
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from atelier import parallel
from atelier.errors import AtelierError
from benchmarks import document
from benchmarks.document import Former
from benchmarks.lines import HEADS, Line, Size

MEASURED = ("training", "sampling", "annotation", "caching", "starting", "scaling")
SECTIONS = (*MEASURED, "planning")  # the last is computed
_DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
_WIDTH = 150  # columns where the output is no terminal
_COLOURS = {"met": "green", "not met": "red"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print one table, write the document."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--size", choices=["full", "tiny"], default="full")
    parser.add_argument(
        "--document", type=Path, default=_DOCUMENT, help="whose tables are written"
    )
    asked = parser.parse_args(arguments)
    size: Size = asked.size
    torch.set_num_threads(1)  # what is compared should not differ in how it is spread
    planned = ""
    before = document.former(asked.document)
    began, load = time.monotonic(), _load()
    found: list[Line] = []
    for name in asked.only:
        module = importlib.import_module(f"benchmarks.{name}")
        _say(f"{name} …")
        if name not in MEASURED:
            planned = module.table(size)
            document.fill(asked.document, {name: planned})
            continue
        measured = list(module.lines(size))
        document.fill(asked.document, {name: document.table(measured)})
        found += measured
    conditions = (
        f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} in "
        f"{time.monotonic() - began:.0f} s on {parallel.cores()} cores ({platform.machine()}), "
        f"one thread; load {load} before, {_load()} after; Python "
        f"{platform.python_version()}, torch {torch.__version__}."
    )
    if set(asked.only) == set(SECTIONS):
        document.fill(asked.document, {"conditions": conditions + "\n"})
    if found:
        _show(found, before, conditions)
    sys.stdout.write(planned)


def _show(
    found: Sequence[Line], before: Mapping[tuple[str, str], Former], conditions: str
) -> None:
    table = Table(title="Against peers and limits", show_lines=False)
    for head in (*HEADS, "ratio before"):
        number = head in {"measured", "ratio", "goal", "ratio before"}
        table.add_column(head, justify="right" if number else "left")
    section, lost = "", []
    for line in found:
        if section and line.section != section:
            table.add_section()
        section = line.section
        *cells, met = line.cells()
        former = before.get(document.identity(cells))
        if former is not None and former.met and line.met is False:
            lost.append(f"{line.what}: {line.ratio:.4g}, before {former.ratio}")
        colour = _COLOURS.get(met)
        shown = f"[{colour}]{met}[/{colour}]" if colour else met
        table.add_row(*cells, shown, "new" if former is None else former.ratio)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)
    missed = sum(line.met is False for line in found)
    held = sum(line.met is not None for line in found)
    console.print(f"{held - missed} of {held} goals met. {conditions}", highlight=False)
    if lost:
        console.print("Met in the table before, and missed now:", highlight=False)
    for one in lost:
        console.print(f"  {one}", highlight=False)


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        main()
    except AtelierError as error:
        sys.exit(f"Error: {error}")
