"""Tables written by people (CSV, TSV, JSON Lines, JSON), read as rows of text by column.

The content decides what a table is, before the suffix does. A JSON object of objects, as
kohya's trainer writes it, is a table too: its names are the files. Column names are compared
without case and surrounding blanks. Every cell is a text: a number is its digits; blank,
``null`` and absent are the same. Empty rows are skipped.
"""

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import posixpath
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TextIO

from atelier import reading
from atelier.reading import UnreadableError

_JSON = {".json", ".jsonl", ".ndjson"}
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # Excel's first line
_IN_A_HEADING = re.compile(r'[\w\-," ]')
_KNOWN = {";": "a semicolon", "\t": "a tab", "|": "a bar"}
_SHOWN = 10  # mistakes that one message lists


@dataclass(frozen=True)
class Row:
    """One row: its line, and its cells by column; a blank cell is ``""``."""

    line: int
    cells: Mapping[str, str]

    def get(self, *columns: str) -> str:
        """Return the first of these cells that is not blank, or ``""``."""
        return next((cell for name in columns if (cell := self.cells.get(name))), "")


@dataclass
class Table:
    """A table as it stands in the file.

    Attributes:
        wanted: The columns that are read; others are ignored.
        heading: The first line of the file, for messages.
        columns: Those of ``wanted`` that there are; all, where mistakes hide which.
        rows: The rows that could be read; of ``stream`` once, one at a time.
        mistakes: Why others could not, each with its line.
    """

    wanted: Collection[str]
    heading: str = ""
    columns: set[str] = field(default_factory=set)
    rows: Iterable[Row] = ()
    mistakes: list[str] = field(default_factory=list)

    def says(self) -> str:
        """Return what the first line is, and a character in it that does not belong there."""
        odd = next((one for one in self.heading if not _IN_A_HEADING.match(one)), None)
        said = f"its first line is {reading.short(self.heading)}"
        if odd is None or self.heading.startswith(("{", "[")):
            return said
        name = _KNOWN.get(odd) or f"{unicodedata.name(odd, 'a character')} (U+{ord(odd):04X})"
        return f"{said}, with {name} in it"


def key(name: str) -> str:
    """Return the one spelling by which names of files, artworks and hashes are compared.

    One name can be written in several ways: é, or e and an accent; ``./a.png``; with blanks
    around it; with the slashes of Windows; a hash in capitals.
    """
    plain = unicodedata.normalize("NFC", name).strip()
    if _HASH.fullmatch(plain):
        return plain.lower()
    return posixpath.normpath(plain.replace("\\", "/")) if plain else ""


def listed(mistakes: Sequence[str]) -> str:
    """Return mistakes as lines to be shown; of many the first few, and how many more."""
    more = len(mistakes) - _SHOWN
    shown = [*mistakes[:_SHOWN], *[f"and {more} more"] * (more > 0)]
    return "\n".join(f"  {one}" for one in shown)


def text(content: bytes) -> str:
    """Return the text of a file.

    Raises:
        UnreadableError: It is not UTF-8; names the line.
    """
    _refuse_other_text(io.BytesIO(content))
    return content.decode("utf-8-sig")


def read(content: bytes, name: str, wanted: Collection[str]) -> Table:
    """Read a table.

    Args:
        content: The file's bytes.
        name: The file's name; its suffix decides where the content does not.
        wanted: Columns that are read.

    Raises:
        UnreadableError: It is not UTF-8.
    """
    found = text(content)
    table = _table(lambda newline: io.StringIO(found, newline=newline), name, wanted)
    return dataclasses.replace(table, rows=list(table.rows))


def stream(file: Path, wanted: Collection[str]) -> Table:
    """Read a table whose rows are read when they are asked for, once.

    Of CSV, TSV and JSON Lines a line is in memory at a time, of other JSON everything. Columns
    and mistakes are known when all rows were read.

    Args:
        file: The table.
        wanted: Columns that are read.

    Raises:
        OSError: It cannot be opened.
        UnreadableError: It is not UTF-8.
    """
    with file.open("rb") as opened:
        _refuse_other_text(opened)
    return _table(
        lambda newline: file.open(encoding="utf-8-sig", newline=newline), file.name, wanted
    )


def _refuse_other_text(file: BinaryIO) -> None:
    for number, line in enumerate(file, start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise UnreadableError(
                f"line {number} is not UTF-8 (byte 0x{line[error.start]:02x}); open it "
                "in the program that wrote it and save it as UTF-8"
            ) from None


def _table(opened: Callable[[str], TextIO], name: str, wanted: Collection[str]) -> Table:
    """The table of a text, which is opened with the line endings that are asked for."""
    with opened("\n") as lines:
        first = next((line for line in lines if line.strip()), "")
        more = any(line.strip() for line in lines)
    table = Table(wanted, heading=first.strip())
    suffix = PurePosixPath(name).suffix.lower()
    if table.heading.startswith("["):
        table.rows = _json(opened, table)
    elif (by_file := _by_file(opened, first, wanted, more=more)) is not None:
        table.rows = _rows_by_file(by_file, table)
    elif table.heading.startswith("{") or suffix in _JSON:
        table.rows = _json_lines(opened, table)
    else:
        table.rows = _csv(opened, table, "\t" if suffix == ".tsv" else ",")
    return table


def _csv(opened: Callable[[str], TextIO], table: Table, comma: str) -> Iterator[Row]:
    with opened("") as lines:
        first, above = lines.readline(), 0
        if said := _SEPARATOR.match(first):
            first, above, comma = lines.readline(), 1, said[1]
            table.heading = first.strip()
        reader = csv.reader(itertools.chain([first], lines), strict=True, delimiter=comma)
        try:
            header = [_name(cell) for cell in next(reader, [])]
            while header and not header[-1]:  # commas that a spreadsheet leaves at the end
                header.pop()
            table.columns.update(set(header) & set(table.wanted))
            for name in sorted(table.columns):
                if header.count(name) > 1:
                    table.mistakes.append(f"line {1 + above}: the column {name} stands twice")
            for cells in reader:
                line = reader.line_num + above
                if not any(map(str.strip, cells)):
                    continue
                if len(cells) < len(header) or any(map(str.strip, cells[len(header) :])):
                    table.mistakes.append(
                        f"line {line}: {len(cells)} columns, the header has {len(header)}; "
                        "quote captions that contain a comma"
                    )
                    continue
                values = dict(zip(header, cells, strict=False))
                yield from _taken(table, line, f"line {line}", values)
        except csv.Error as error:
            table.mistakes.append(
                f"line {reader.line_num + above}: {error}; is a quote left open before?"
            )


def _json_lines(opened: Callable[[str], TextIO], table: Table) -> Iterator[Row]:
    with opened("\n") as lines:
        for line, row in enumerate(lines, start=1):
            if not row.strip():
                continue
            try:
                values = reading.json_values(row.removesuffix("\n"), _object)
            except UnreadableError as error:
                table.mistakes.append(f"line {line}: {error}")
            else:
                yield from _taken(table, line, f"line {line}", values)
    _take_any_column(table)


def _by_file(
    opened: Callable[[str], TextIO], first: str, wanted: Collection[str], *, more: bool
) -> dict[str, dict[str, Any]] | None:
    """One JSON object of objects, by their names, which are no columns; else None."""
    if not first.lstrip().startswith("{"):
        return None
    spelled = partial(_object, spelled=str)
    with contextlib.suppress(UnreadableError):
        reading.json_values(first, spelled)
        if more:  # a whole object is a line of several
            return None
    with opened("\n") as lines:
        try:
            values = reading.json_values(lines.read(), spelled)
        except UnreadableError:
            return None
    rows = isinstance(values, dict) and all(isinstance(one, dict) for one in values.values())
    return values if rows and values and not {*map(_name, values)} & {*wanted} else None


def _rows_by_file(rows: Mapping[str, Mapping[str, Any]], table: Table) -> Iterator[Row]:
    """Rows named by their files; tags are the caption of a row that has none."""
    for number, (file, cells) in enumerate(rows.items(), start=1):
        row = {_name(name): value for name, value in cells.items()}
        caption = row.get("caption") or row.get("tags")
        values = {**row, "file": file, "caption": caption}
        yield from _taken(table, number, f"row {number}", values)
    _take_any_column(table)


def _json(opened: Callable[[str], TextIO], table: Table) -> Iterator[Row]:
    """The rows of one JSON list; their numbers stand for lines."""
    with opened("\n") as lines:
        try:
            values = reading.json_values(lines.read(), _object)
        except UnreadableError as error:
            table.mistakes.append(str(error))
            values = []
    for number, row in enumerate(values, start=1):
        yield from _taken(table, number, f"row {number}", row)
    _take_any_column(table)


def _take_any_column(table: Table) -> None:
    """Where mistakes hide which columns there are, take all."""
    if table.mistakes and not table.columns:
        table.columns.update(table.wanted)


def _taken(table: Table, line: int, where: str, values: Any) -> Iterator[Row]:
    """Yield a row, or add the mistake in it."""
    if not isinstance(values, dict):
        table.mistakes.append(
            f"{where}: should be an object that names its cells, is {reading.short(values)}"
        )
        return
    table.columns.update(values.keys() & set(table.wanted))
    nested = [
        f"{where}: {name} should be a text, is {reading.short(values[name])}"
        for name in table.wanted
        if isinstance(values.get(name), dict | list)
    ]
    table.mistakes += nested
    cells = {name: _cell(values.get(name)) for name in table.wanted}
    if not nested and (any(cells.values()) or any(map(_cell, values.values()))):
        yield Row(line, cells)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _name(column: str) -> str:
    """A column's name without case, blanks around it, and characters that cannot be seen."""
    seen = "".join(one for one in column if unicodedata.category(one) != "Cf")
    return re.sub(r"\s+", "_", unicodedata.normalize("NFKC", seen).strip().lower())


def _object(
    pairs: list[tuple[str, Any]], spelled: Callable[[str], str] = _name
) -> dict[str, Any]:
    """An object of JSON by its names, in one spelling: a row by its columns.

    Raises:
        ValueError: A name stands twice, and one of its values would be lost.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if spelled(name) in found:
            raise ValueError(f"{reading.short(name)} stands twice")
        found[spelled(name)] = value
    return found
