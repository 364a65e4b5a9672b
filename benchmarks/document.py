"""Tables between marks of a Markdown document: ``<!-- bench: name -->`` … ``<!-- end -->``."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from atelier import atomic
from benchmarks.lines import HEADS, Line

_END = "<!-- end -->"
_MET = {"met", "not met", "–"}


class Former(NamedTuple):
    """What a document says of a line, from an earlier run."""

    ratio: str
    met: bool  # False where it has no goal


def former(file: Path) -> dict[tuple[str, str], Former]:
    """Return what a document's tables say of each line, by its ``identity``."""
    found = {}
    for row in file.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        if len(cells) == len(HEADS) and cells != list(HEADS) and cells[-1] in _MET:
            said = dict(zip(HEADS, cells, strict=True))
            found[identity(cells)] = Former(said["ratio"], said["met"] == "met")
    return found


def identity(cells: Sequence[str]) -> tuple[str, str]:
    """Return what was compared with what: two cells without figures and notes."""
    what, _, against, *_ = (re.sub(r"\([^)]*\)|[\d.,]+", "", cell).strip() for cell in cells)
    return what, against


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
