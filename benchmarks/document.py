"""Tables between marks of a Markdown document: ``<!-- bench: name -->`` … ``<!-- end -->``."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from atelier import atomic
from benchmarks.lines import HEADS, Line

_END = "<!-- end -->"


def table(lines: Iterable[Line]) -> str:
    """Return the lines as a Markdown table."""
    return rows(HEADS, (line.cells() for line in lines))


def rows(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    written = [heads, ["---"] * len(heads), *cells]
    return "".join("| " + " | ".join(row) + " |\n" for row in written)


def fill(file: Path, tables: dict[str, str]) -> None:
    """Put each table between the marks that bear its name.

    Raises:
        ValueError: A name has no marks, or they are there twice.
    """
    text = file.read_text(encoding="utf-8")
    for name, content in tables.items():
        start = f"<!-- bench: {name} -->\n"
        pattern = re.escape(start) + ".*?" + re.escape(_END)
        whole = f"{start}{content}{_END}"
        text, found = re.subn(pattern, lambda _: whole, text, flags=re.DOTALL)  # noqa: B023
        if found != 1:
            raise ValueError(f"{file} should hold the mark {start.strip()!r} once, has {found}")
    atomic.write(file, text)
