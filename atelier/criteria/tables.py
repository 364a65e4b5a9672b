"""Tables written by people (CSV, TSV, JSON Lines, JSON), read as rows of text by column.

The content decides what a table is, before the suffix does. A JSON object of objects, as
kohya's trainer writes it, is a table too: its names are the files. Column names are compared
without case and surrounding blanks. Every cell is a text: a number is its digits; blank,
``null`` and absent are the same. Empty rows are skipped.
"""

import csv
import io
import json
import posixpath
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Any

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
        rows: The rows that could be read.
        mistakes: Why others could not, each with its line.
    """

    wanted: Collection[str]
    heading: str = ""
    columns: set[str] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)
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
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UnreadableError(
            f"line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); open it "
            "in the program that wrote it and save it as UTF-8"
        ) from None


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
    table = Table(wanted, heading=found.strip().partition("\n")[0].strip())
    suffix = PurePosixPath(name).suffix.lower()
    if found.lstrip().startswith("["):
        _read_json(found, table)
    elif (by_file := _by_file(found, wanted)) is not None:
        _read_by_file(by_file, table)
    elif found.lstrip().startswith("{") or suffix in _JSON:
        _read_json_lines(found, table)
    else:
        _read_csv(found, table, "\t" if suffix == ".tsv" else ",")
        return table
    if table.mistakes and not table.columns:
        table.columns.update(wanted)
    return table


def _read_csv(found: str, table: Table, comma: str) -> None:
    said = _SEPARATOR.match(found)
    if said:
        found, comma = found[said.end() :], said[1]
        table.heading = found.partition("\n")[0].strip()
    reader = csv.reader(io.StringIO(found, newline=""), strict=True, delimiter=comma)
    above = 1 if said else 0
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
            _take(table, line, f"line {line}", dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        table.mistakes.append(
            f"line {reader.line_num + above}: {error}; is a quote left open before?"
        )


def _read_json_lines(found: str, table: Table) -> None:
    for line, row in enumerate(found.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            values = reading.json_values(row, _object)
        except UnreadableError as error:
            table.mistakes.append(f"line {line}: {error}")
        else:
            _take(table, line, f"line {line}", values)


def _by_file(found: str, wanted: Collection[str]) -> dict[str, dict[str, Any]] | None:
    """One JSON object of objects, by their names, which are no columns; else None."""
    if not found.lstrip().startswith("{"):
        return None
    try:
        values = reading.json_values(found, partial(_object, spelled=str))
    except UnreadableError:
        return None
    rows = isinstance(values, dict) and all(isinstance(one, dict) for one in values.values())
    return values if rows and values and not {*map(_name, values)} & {*wanted} else None


def _read_by_file(rows: Mapping[str, Mapping[str, Any]], table: Table) -> None:
    """Rows named by their files; tags are the caption of a row that has none."""
    for number, (file, cells) in enumerate(rows.items(), start=1):
        row = {_name(name): value for name, value in cells.items()}
        caption = row.get("caption") or row.get("tags")
        _take(table, number, f"row {number}", {**row, "file": file, "caption": caption})


def _read_json(found: str, table: Table) -> None:
    """The rows of one JSON list; their numbers stand for lines."""
    try:
        values = reading.json_values(found, _object)
    except UnreadableError as error:
        table.mistakes.append(str(error))
        return
    for number, row in enumerate(values, start=1):
        _take(table, number, f"row {number}", row)


def _take(table: Table, line: int, where: str, values: Any) -> None:
    """Add a row, or the mistake in it."""
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
        table.rows.append(Row(line, cells))


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
