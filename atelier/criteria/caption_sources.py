"""Caption sources of a folder: a table, caption files, or the names of the files.

A table is CSV, JSON Lines or JSON (``tables``). Its columns are ours, ``file`` and ``caption``,
or Hugging Face's, ``file_name`` and ``text``; or one JSON object has an object for each file,
as kohya's ``meta_cap.json``. A file may be named without its suffix. ``artwork`` is optional,
other columns are ignored. Paths in ``file`` are relative to ``data/``, those in ``file_name``
to the table. A caption file is a text next to a picture, such as ``a.txt`` or ``a.caption``
for ``a.png``.
"""

import os.path
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atelier import reading
from atelier.criteria import tables
from atelier.errors import ArtifactError

SUFFIXES = (".txt", ".caption")  # of caption files; the first counts where there are both
KOHYA = ("meta_lat.json", "meta_cap.json")  # the first also has the sizes of its buckets
USUAL = (
    "metadata.jsonl",
    "metadata.csv",
    "captions.csv",
    "captions.jsonl",
    *KOHYA,
)  # tables
FILE = ("file", "file_name")
CAPTION = ("caption", "text")
_LONGEST = 1 << 20  # bytes of a caption file


@dataclass(frozen=True)
class Said:
    """What a source says of one picture: its caption, or why it is set aside."""

    caption: str
    artwork: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Source:
    """What one source says.

    Attributes:
        name: Of the source, in words.
        said: What it says, by the picture's file.
        aside: Files and rows that are no pictures, each with the reason; "" for the source's
            own files.
        lacking: Reason for setting a picture without caption aside; ``{stem}`` is its path
            without the suffix; "": it is not.
        notes: What a person should know of captions that are used.
    """

    name: str
    said: Mapping[str, Said]
    aside: Mapping[str, str]
    lacking: str
    notes: tuple[str, ...] = ()


def title(file: str) -> str:
    """Return the words of a file's name."""
    return re.sub(r"[\W_]+", " ", PurePosixPath(file).stem).strip()


def stem(file: str) -> str:
    """Return the path without its suffix."""
    return str(PurePosixPath(file).with_suffix(""))


def names(found: Iterable[str], *, captionless: bool) -> Source:
    """Take the words of the names; tables among the files are no pictures."""
    found = list(found)
    aside = {
        file: "a table; annotate.captions may name it, which makes it the source of captions"
        for file in found
        if PurePosixPath(file).name.lower() in USUAL
    }
    said = {} if captionless else {file: Said(title(file)) for file in found}
    name = "no captions yet" if captionless else "file names"
    return Source(name, said, aside, "")


def caption_files(data: Path, found: Sequence[str], *, captionless: bool) -> Source | None:
    """Return the captions from caption files; None if there are none."""
    beside: dict[str, list[str]] = {}
    for file in filter(is_text, found):
        beside.setdefault(tables.key(stem(file)), []).append(file)
    said: dict[str, Said] = {}
    aside: dict[str, str] = {}
    longer: dict[str, None] = {}
    for file in found:
        # Some programs call it a.png.txt.
        own = [one for name in (stem(file), file) for one in beside.get(tables.key(name), ())]
        if is_text(file) or not own:
            continue
        first, *rest = sorted(own, key=lambda one: SUFFIXES.index(_suffix(one)))
        aside |= {first: ""} | dict.fromkeys(rest, f"{first} counts")
        said[file], lines = _read(data, first)
        longer |= {first: None} if lines > 1 else {}
    if not said:
        return None
    lacking = "it has no caption file, such as {stem}.txt; other pictures have"
    notes = (
        f"{len(longer)} caption files have several lines, such as {next(iter(longer), '')}; "
        "the first line is the caption",
    )
    return Source(
        "caption files",
        said,
        {**names(found, captionless=True).aside, **_texts(found), **aside},
        "" if captionless else lacking,
        notes if longer else (),
    )


def is_text(file: str) -> bool:
    """Say whether a file is a text by its suffix."""
    return _suffix(file) in SUFFIXES


def table(data: Path, found: Sequence[str], name: str) -> Source:
    """Take the rows of a table, or of the tables of that name in the folders below.

    Raises:
        ArtifactError: There is none, or it is broken; all mistakes at once.
    """
    rows: dict[str, _Row] = {}
    files = _tables(data, found, name)
    for one in files:
        _add_rows(data, one, rows, beside=tables.key(one) != tables.key(name))
    there = {tables.key(file): file for file in found}
    rows = _by_picture(rows, there)
    said = {
        file: Said(" ".join(row.caption.split()), row.artwork)
        for file in found
        if (row := rows.get(tables.key(file))) is not None
    }
    missing = {
        row.file: f"{row.where} names it; it is not there"
        for key, row in rows.items()
        if key not in there
    }
    idle = {
        file: f"a caption file; {name} counts"
        for file in _beside_pictures(found)
        if file not in said
    }
    aside = missing | idle | dict.fromkeys(files, "")
    return Source(name, said, aside, f"{name} has no row for it")


def read_table(path: Path) -> tables.Table:
    """Read a table that may be one of captions.

    Raises:
        OSError: It cannot be opened.
        UnreadableError: It is not UTF-8.
    """
    return tables.read(path.read_bytes(), path.name, (*FILE, *CAPTION, "artwork"))


def names_captions(found: tables.Table) -> bool:
    """Say whether a table has the columns of one of captions."""
    return bool(found.columns.intersection(FILE) and found.columns.intersection(CAPTION))


@dataclass(frozen=True)
class _Row:
    where: str  # table and line
    file: str
    caption: str
    artwork: str


def _by_picture(rows: Mapping[str, _Row], there: Mapping[str, str]) -> dict[str, _Row]:
    """Rows by the key of their picture, where they name it without its suffix too."""
    stems: dict[str, list[str]] = {}
    for key, file in there.items():
        if not is_text(file):
            stems.setdefault(tables.key(stem(file)), []).append(key)
    found = {}
    for key, row in rows.items():
        own = [] if key in there else stems.get(key, [])
        found[own[0] if len(own) == 1 and own[0] not in rows else key] = row
    return found


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _beside_pictures(found: Sequence[str]) -> list[str]:
    pictures = {
        tables.key(name) for file in found if not is_text(file) for name in (file, stem(file))
    }
    return [file for file in found if is_text(file) and tables.key(stem(file)) in pictures]


def _texts(found: Iterable[str]) -> dict[str, str]:
    return {file: "a text without a picture of its name" for file in found if is_text(file)}


def _read(data: Path, file: str) -> tuple[Said, int]:
    """What a caption file says, and its number of lines."""
    try:
        with (data / file).open("rb") as opened:
            text = tables.text(opened.read(_LONGEST))
    except reading.UnreadableError as error:
        return Said("", refused=f"its caption file {file}, {error}"), 0
    except OSError as error:
        return Said(
            "", refused=f"its caption file {file} cannot be opened: {error.strerror}"
        ), 0
    lines = [line for one in text.splitlines() if (line := " ".join(one.split()))]
    if lines and reading.CONTROL.search(lines[0]):
        return Said("", refused=f"the caption in {file} has control characters"), 0
    return Said(lines[0] if lines else ""), len(lines)


def _tables(data: Path, found: Sequence[str], name: str) -> list[str]:
    """The table, or those of its name in folders below where ``data`` itself has none."""
    normal = posixpath.normpath(name)
    if name.startswith(("/", "..")) or normal.startswith(".."):
        raise ArtifactError(f"annotate.captions should be a file inside {data}, is {name!r}")
    if os.path.isfile(data / normal):  # noqa: PTH113 - Path.is_file raises
        return [normal]
    key = tables.key(normal)
    here = [file for file in found if tables.key(file) == key]
    below = [file for file in found if tables.key(PurePosixPath(file).name) == key]
    if not (here or below):
        raise ArtifactError(
            f"{data / normal} is no file; annotate.captions names a CSV or JSONL inside "
            f"{data} with columns file and caption (or file_name and text), or is null to "
            "take caption files (a.txt beside a.png) or else the file names as captions"
        )
    return here or below


def _below(folder: Path, file: str) -> str:
    """A file's path as it is named; an absolute one inside the folder begins there."""
    if not file.startswith("/"):
        return file
    own = os.path.relpath(file, os.path.abspath(folder))  # noqa: PTH100 - links stay links
    return file if own.startswith("..") else own


def _add_rows(data: Path, name: str, rows: dict[str, _Row], *, beside: bool) -> None:
    """Add a table's rows by the key of their file.

    Raises:
        ArtifactError: It is no such table; names all mistakes.
    """
    path = data / name
    try:
        found = read_table(path)
    except reading.UnreadableError as error:
        raise ArtifactError(f"{path}, {error}") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    mistakes = list(found.mistakes)
    if not names_captions(found):
        raise ArtifactError(
            f"{path} should have the columns file and caption, or file_name and text, with "
            f"commas between them; {found.says()}"
        )
    folder = posixpath.dirname(name)
    for row in found.rows:
        file, caption = row.get(*FILE), row.get(*CAPTION)
        where = f"{name}, line {row.line}"
        file = _below(path.parent, file)
        inside = posixpath.join(folder, file)
        place = inside if beside or not row.cells["file"] else file
        if not file:
            mistakes.append(f"line {row.line}: file is empty")
        elif reading.CONTROL.search(" ".join(caption.split())):
            mistakes.append(
                f"line {row.line}: caption {reading.short(caption)} has control characters"
            )
        elif (key := tables.key(place)) in rows:
            mistakes.append(
                f"line {row.line}: {reading.short(file)} stands already in "
                f"{rows[key].where.removeprefix(f'{name}, ')}"
            )
        else:
            rows[key] = _Row(where, place, caption, row.get("artwork"))
    if mistakes:
        raise ArtifactError(f"{path} is no table of captions:\n{tables.listed(mistakes)}")
