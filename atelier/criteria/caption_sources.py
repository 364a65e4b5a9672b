"""Caption sources of a folder: a table, caption files, or the names of the files.

A table is CSV, JSON Lines or JSON (``tables``). Its columns are ours, ``file`` and ``caption``,
or Hugging Face's, ``file_name`` and ``text``; or one JSON object has an object for each file,
as kohya's ``meta_cap.json``. A file may be named without its suffix. ``artwork`` is optional,
other columns are ignored. Paths in ``file`` are relative to ``data/``, those in ``file_name``
to the table. A caption file is a text next to a picture, such as ``a.txt`` or ``a.caption``
for ``a.png``.
"""

import itertools
import os.path
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from atelier import reading
from atelier.criteria import tables
from atelier.errors import ArtifactError
from atelier.on_disk import Keyed, Texts

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
_COLUMNS = (*FILE, *CAPTION, "artwork")
_LONGEST = 1 << 20  # bytes of a caption file


class Said(NamedTuple):
    """What a source says of one picture: its caption, or why it is set aside."""

    caption: str
    artwork: str = ""
    refused: str = ""


class Aside(NamedTuple):
    """A file or row that is no picture, and the reason; "" for the source's own files."""

    file: str
    reason: str


@dataclass(frozen=True)
class Source:
    """What one source says.

    Attributes:
        name: Of the source, in words.
        said: Returns what it says of a picture, by its file; None: nothing.
        aside: Files and rows that are no pictures.
        lacking: Reason for setting a picture without caption aside; ``{stem}`` is its path
            without the suffix; "": it is not.
        notes: What a person should know of captions that are used.
    """

    name: str
    said: Callable[[str], Said | None]
    aside: Keyed[Aside]
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
    name = "no captions yet" if captionless else "file names"
    aside = Keyed(Aside, _idle_tables(found))
    return Source(name, lambda file: None if captionless else Said(title(file)), aside, "")


class _CaptionFiles(NamedTuple):
    """The caption files that have one path without the suffix, as the key of names."""

    key: str
    files: str  # with \0 between them

    def with_(self, file: str) -> "_CaptionFiles":
        return self._replace(files=f"{self.files}\0{file}")


class _Read(NamedTuple):
    """What a picture's caption file says."""

    file: str
    caption: str
    artwork: str
    refused: str


def caption_files(data: Path, found: Collection[str], *, captionless: bool) -> Source | None:
    """Return the captions from caption files; None if there are none."""
    beside = Keyed(_CaptionFiles)
    for file in filter(is_text, found):
        own = _CaptionFiles(tables.key(stem(file)), file)
        if not beside.add(own) and (others := beside.get(own.key)):
            beside.update([others.with_(file)])
    said, longer = Keyed(_Read), Keyed(Aside)
    aside = Keyed(Aside, itertools.chain(_idle_tables(found), _texts(found)))
    example = ""
    for file in found:
        # Some programs call it a.png.txt.
        keys = (tables.key(name) for name in (stem(file), file))
        of_keys = [one.files.split("\0") for key in keys if (one := beside.get(key))]
        own_files = [one for some in of_keys for one in some]
        if is_text(file) or not own_files:
            continue
        first, *rest = sorted(own_files, key=lambda one: SUFFIXES.index(_suffix(one)))
        aside.update([Aside(first, ""), *(Aside(one, f"{first} counts") for one in rest)])
        what, lines = _read(data, first)
        said.update([_Read(file, *what)])
        if lines > 1:
            example = example or first
            longer.update([Aside(first, "")])
    if not len(said):
        return None

    def of(file: str) -> Said | None:
        row = said.get(file)
        return None if row is None else Said(*row[1:])

    lacking = "it has no caption file, such as {stem}.txt; other pictures have"
    notes = (
        f"{len(longer)} caption files have several lines, such as {example}; "
        "the first line is the caption",
    )
    return Source(
        "caption files", of, aside, "" if captionless else lacking, notes if example else ()
    )


def is_text(file: str) -> bool:
    """Say whether a file is a text by its suffix."""
    return _suffix(file) in SUFFIXES


def table(data: Path, found: Collection[str], name: str) -> Source:
    """Take the rows of a table, or of the tables of that name in the folders below.

    Raises:
        ArtifactError: There is none, or it is broken; all mistakes at once.
    """
    rows = Keyed(_Row)
    files = _tables(data, found, name)
    for one in files:
        _add_rows(data, one, rows, beside=tables.key(one) != tables.key(name))
    aside = Keyed(Aside, _absent(rows, found))

    def said(file: str) -> Said | None:
        row = rows.get(tables.key(file))
        return None if row is None else Said(" ".join(row.caption.split()), row.artwork)

    idle = (file for file in _beside_pictures(found) if said(file) is None)
    aside.update(Aside(file, f"a caption file; {name} counts") for file in idle)
    aside.update(Aside(file, "") for file in files)
    return Source(name, said, aside, f"{name} has no row for it")


def read_table(path: Path) -> tables.Table:
    """Read a table that may be one of captions.

    Raises:
        OSError: It cannot be opened.
        UnreadableError: It is not UTF-8.
    """
    return tables.read(path.read_bytes(), path.name, _COLUMNS)


def names_captions(found: tables.Table) -> bool:
    """Say whether a table has the columns of one of captions."""
    return bool(found.columns.intersection(FILE) and found.columns.intersection(CAPTION))


class _Row(NamedTuple):
    key: str  # of the file's name
    where: str  # table and line
    file: str
    caption: str
    artwork: str


class _Unmatched(NamedTuple):
    """A row that names no file, and a picture whose path without the suffix it names."""

    key: str
    picture: str
    pictures: int


def _absent(rows: Keyed[_Row], found: Iterable[str]) -> list[Aside]:
    """Let rows that name a picture without its suffix name it; return those without one."""
    there = Texts(map(tables.key, found))
    unmatched = Keyed(_Unmatched, (_Unmatched(row.key, "", 0) for row in _lacking(rows, there)))
    if len(unmatched):
        for key in there:
            one = None if is_text(key) else unmatched.get(tables.key(stem(key)))
            if one is not None:
                unmatched.update([_Unmatched(one.key, key, one.pictures + 1)])
    absent = []
    for key, picture, pictures in unmatched:
        row = rows.get(key)
        assert row is not None
        if pictures != 1 or not rows.add(row._replace(key=picture)):
            absent.append(Aside(row.file, f"{row.where} names it; it is not there"))
    return absent


def _lacking(rows: Iterable[_Row], there: Iterable[str]) -> Iterator[_Row]:
    """Yield the rows whose key is not there; both are in the order of keys."""
    keys = iter(there)
    key = next(keys, None)
    for row in rows:
        while key is not None and key < row.key:
            key = next(keys, None)
        if key != row.key:
            yield row


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _beside_pictures(found: Collection[str]) -> Iterator[str]:
    texts = Texts(tables.key(stem(file)) for file in found if is_text(file))
    if not len(texts):
        return
    names = (name for file in found if not is_text(file) for name in (file, stem(file)))
    pictures = Texts(key for key in map(tables.key, names) if key in texts)
    yield from (file for file in found if is_text(file) and tables.key(stem(file)) in pictures)


def _idle_tables(found: Iterable[str]) -> Iterator[Aside]:
    why = "a table; annotate.captions may name it, which makes it the source of captions"
    return (Aside(file, why) for file in found if PurePosixPath(file).name.lower() in USUAL)


def _texts(found: Iterable[str]) -> Iterator[Aside]:
    return (
        Aside(file, "a text without a picture of its name") for file in found if is_text(file)
    )


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


def _tables(data: Path, found: Iterable[str], name: str) -> list[str]:
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


def _add_rows(data: Path, name: str, rows: Keyed[_Row], *, beside: bool) -> None:
    """Add a table's rows by the key of their file.

    Raises:
        ArtifactError: It is no such table; names all mistakes.
    """
    path = data / name
    folder = posixpath.dirname(name)
    mistakes = []
    try:
        found = tables.stream(path, _COLUMNS)
        for row in found.rows:
            file, caption = row.get(*FILE), row.get(*CAPTION)
            file = _below(path.parent, file)
            inside = posixpath.join(folder, file)
            place = inside if beside or not row.cells["file"] else file
            where = f"{name}, line {row.line}"
            own = _Row(tables.key(place), where, place, caption, row.get("artwork"))
            if not file:
                mistakes.append(f"line {row.line}: file is empty")
            elif reading.CONTROL.search(" ".join(caption.split())):
                mistakes.append(
                    f"line {row.line}: caption {reading.short(caption)} has control characters"
                )
            elif not rows.add(own) and (other := rows.get(own.key)):
                mistakes.append(
                    f"line {row.line}: {reading.short(file)} stands already in "
                    f"{other.where.removeprefix(f'{name}, ')}"
                )
    except reading.UnreadableError as error:
        raise ArtifactError(f"{path}, {error}") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    if not names_captions(found):
        raise ArtifactError(
            f"{path} should have the columns file and caption, or file_name and text, with "
            f"commas between them; {found.says()}"
        )
    mistakes = [*found.mistakes, *mistakes]
    if mistakes:
        raise ArtifactError(f"{path} is no table of captions:\n{tables.listed(mistakes)}")
