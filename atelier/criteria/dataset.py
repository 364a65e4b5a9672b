"""The paintings as they lie in ``data/``: which files there are, and what each is called.

A caption ``y`` comes from a table inside ``data/``, CSV with a header or JSONL, with the
columns ``file`` and ``caption``, and optionally ``artwork``, which the split never tears
apart; other columns are ignored. Without a table, the words of the file name are the caption.

Hidden files and the table itself are no pictures; every other file is one, or is set aside.
"""

import csv
import io
import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from atelier import reading
from atelier.criteria.annotations import Quarantined
from atelier.errors import ArtifactError

_CURE = (
    "`atelier data` draws the starter paintings there; or put your own pictures "
    "into it and run `dvc add {data}`"
)
_SHOWN = 10  # mistakes that one message lists


@dataclass(frozen=True)
class Entry:
    """A file that has a caption; whether it is a picture is not known yet."""

    file: str  # path inside data/, with / between folders
    caption: str  # y; empty if nobody wrote one and an annotator is to
    title: str  # the words of the file's name
    artwork: str  # the path without its suffix, if the table does not say


@dataclass(frozen=True)
class Corpus:
    """What lies in ``data/``."""

    entries: list[Entry]  # in the order of their paths
    quarantined: list[Quarantined]


@dataclass(frozen=True)
class _Row:
    line: int
    file: str
    caption: str
    artwork: str


def find(data: Path, captions: str | None, *, captionless: bool = False) -> Corpus:
    """List the files of ``data`` with their captions.

    Args:
        data: The folder of paintings.
        captions: Table of captions, a path inside ``data``; None takes the file names.
        captionless: Keep files without a caption, for someone will write it; the name of a
            file is none then.

    Raises:
        ArtifactError: The folder is absent or empty, or the table is broken; the text says
            what to do, and names all mistakes of the table.
    """
    files, quarantined = _files(data)
    entries: list[Entry | None]
    if captions is None:
        entries = [_named(file, as_caption=not captionless) for file in files]
    else:
        table = posixpath.normpath(captions)
        rows = _rows(_table(data, table), data / table)
        files.pop(table, None)
        entries = [_captioned(file, rows) for file in files]
        quarantined += _missing(files, rows, table)
        quarantined += [
            Quarantined(file=file, reason=f"{table} has no row for it")
            for file, entry in zip(files, entries, strict=True)
            if entry is None
        ]
    if not files:
        raise ArtifactError(f"{data} holds no pictures; {_CURE.format(data=data)}.")
    named = [entry for entry in entries if entry is not None]
    quarantined += [
        Quarantined(file=entry.file, reason="its caption is empty")
        for entry in named
        if not (entry.caption or captionless)
    ]
    return Corpus([entry for entry in named if entry.caption or captionless], quarantined)


def nothing_usable(data: Path, quarantined: list[Quarantined]) -> ArtifactError:
    """Return the error for a folder in which every file was set aside; shows the first few."""
    first = "\n".join(f"  {one.file}: {one.reason}" for one in quarantined[:3])
    return ArtifactError(
        f"{data} holds no picture that can be used; {len(quarantined)} were set aside, "
        f"such as:\n{first}\n{_CURE.format(data=data)}."
    )


def _files(data: Path) -> tuple[dict[str, None], list[Quarantined]]:
    """Paths inside ``data``, sorted, and those whose names cannot be written down."""
    if not data.is_dir():
        what = "is not a folder" if data.exists() else "is absent"
        raise ArtifactError(f"{data} {what}; {_CURE.format(data=data)}.")
    found, unusable = [], []
    for file in _walk(data):
        try:
            file.encode()
        except UnicodeEncodeError:
            name = os.fsencode(file).decode(errors="backslashreplace")
            unusable.append(Quarantined(file=name, reason="its name is not UTF-8; rename it"))
            continue
        # A pipe or a device would never end.
        if stat.S_ISFIFO(mode := _mode(data / file)) or stat.S_ISCHR(mode):
            unusable.append(Quarantined(file=file, reason="it is no ordinary file"))
        else:
            found.append(file)
    return dict.fromkeys(sorted(found)), sorted(unusable, key=lambda one: one.file)


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode
    except OSError:
        return 0  # whoever opens it says why it cannot be


def _walk(data: Path) -> Iterator[str]:
    seen = set()  # linked folders are followed, a link back to its own parent once
    for folder, below, names in os.walk(data, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [name for name in below if not name.startswith(".") and real not in seen]
        if real not in seen:
            seen.add(real)
            inside = PurePosixPath(Path(folder).relative_to(data).as_posix())
            yield from (str(inside / name) for name in names if not name.startswith("."))


def _named(file: str, *, as_caption: bool) -> Entry:
    title = _title(file)
    caption = title if as_caption else ""
    return Entry(file, caption, title, str(PurePosixPath(file).with_suffix("")))


def _title(file: str) -> str:
    return re.sub(r"[\W_]+", " ", PurePosixPath(file).stem).strip()


def _captioned(file: str, rows: dict[str, _Row]) -> Entry | None:
    row = rows.get(_key(file))
    if row is None:
        return None
    artwork = row.artwork or str(PurePosixPath(file).with_suffix(""))
    return Entry(file, " ".join(row.caption.split()), _title(file), artwork)


def _missing(files: dict[str, None], rows: dict[str, _Row], table: str) -> list[Quarantined]:
    there = {_key(file) for file in files}
    return [
        Quarantined(file=row.file, reason=f"{table}, line {row.line} names it; it is not there")
        for key, row in rows.items()
        if key not in there
    ]


def _key(file: str) -> str:
    # One name can be spelled in two ways (é, or e and an accent); macOS likes the second.
    return unicodedata.normalize("NFC", posixpath.normpath(file))


def _table(data: Path, table: str) -> str:
    """Text of the table of captions."""
    path = data / table
    if table.startswith(("/", "..")):
        raise ArtifactError(f"annotate.captions should be a file inside {data}, is {table!r}")
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise ArtifactError(
            f"{path} is no file; annotate.captions names a CSV or JSONL inside {data} with "
            "columns file and caption, or is null to take the file names as captions"
        ) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ArtifactError(
            f"{path}, line {line} is not UTF-8 (byte 0x{content[error.start]:02x}); open it "
            "in the program that wrote it and save it as UTF-8"
        ) from None


def _rows(text: str, path: Path) -> dict[str, _Row]:
    """Rows of the table by the key of their file."""
    mistakes: list[str] = []
    read = _jsonl if path.suffix == ".jsonl" else _csv
    rows: dict[str, _Row] = {}
    for row in read(text, path, mistakes):
        if not row.file.strip():
            mistakes.append(f"line {row.line}: file is empty")
        elif reading.CONTROL.search(" ".join(row.caption.split())):
            mistakes.append(
                f"line {row.line}: caption {reading.short(row.caption)} has control characters"
            )
        elif (other := rows.setdefault(_key(row.file), row)) is not row:
            mistakes.append(
                f"line {row.line}: {reading.short(row.file)} stands already "
                f"in line {other.line}"
            )
    if mistakes:
        more = f"\n  and {len(mistakes) - _SHOWN} more" * (len(mistakes) > _SHOWN)
        shown = "\n".join(f"  {mistake}" for mistake in mistakes[:_SHOWN])
        raise ArtifactError(f"{path} is no table of captions:\n{shown}{more}")
    return rows


def _csv(text: str, path: Path, mistakes: list[str]) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        absent = [name for name in ("file", "caption") if name not in header]
        if absent:
            raise ArtifactError(
                f"{path} should have the columns file and caption, with commas between them; "
                f"its first line is {reading.short(','.join(header))}"
            )
        for cells in filter(None, reader):
            if len(cells) == len(header):
                named = dict(zip(header, cells, strict=True))
                artwork = named.get("artwork", "")
                yield _Row(reader.line_num, named["file"], named["caption"], artwork)
            else:
                mistakes.append(
                    f"line {reader.line_num}: {len(cells)} columns, the header has "
                    f"{len(header)}; quote captions that contain a comma"
                )
    except csv.Error as error:
        mistakes.append(f"line {reader.line_num}: {error}; is a quote left open before?")


def _jsonl(text: str, path: Path, mistakes: list[str]) -> Iterator[_Row]:
    del path
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = reading.json_values(line)
        except reading.UnreadableError as error:
            mistakes.append(f"line {number}: {error}")
            continue
        if _has_texts(values):
            artwork = str(values.get("artwork") or "")
            yield _Row(number, values["file"], values["caption"], artwork)
        else:
            mistakes.append(f"line {number}: should hold the texts 'file' and 'caption'")


def _has_texts(values: Any) -> bool:
    return (
        isinstance(values, dict)
        and all(isinstance(values.get(name), str) for name in ("file", "caption"))
        and isinstance(values.get("artwork"), str | int | None)
    )
