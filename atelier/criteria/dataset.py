"""Files of the data set in ``data/``: pictures, their captions, and files set aside.

A caption ``y`` comes from the table that ``annotate.captions`` names; without one from caption
files next to the pictures, ``a.txt`` or ``a.caption``; without either from the file's name
(``caption_sources``, docs/formats.md).

Hidden files are ignored. Every other file is a picture, a source of captions, or set aside.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from atelier.criteria import caption_sources, tables
from atelier.criteria.annotations import Quarantined
from atelier.criteria.caption_sources import Said, Source, stem, title
from atelier.errors import ArtifactError
from atelier.on_disk import Listed, Texts

_CURE = (
    "`atelier data` draws the starter paintings there; or put your own pictures "
    "into it and run `dvc add {data}`"
)
PACKED = (".parquet", ".arrow")  # data sets of Hugging Face; their pictures are inside
_PACKED = "a packed dataset; `atelier data unpack` takes the pictures out of it into a folder"
_PARQUET = "a table in the format of parquet, which is not read; write it as metadata.jsonl"


class Entry(NamedTuple):
    """A file that has a caption; whether it is a picture is not known yet."""

    file: str  # path inside data/, with / between folders
    caption: str  # y; empty if an annotator must write it
    title: str  # the words of the file's name
    artwork: str  # the path without its suffix, if the table does not say


@dataclass(frozen=True)
class Corpus:
    """What lies in ``data/``.

    Attributes:
        entries: In the order of their paths; on disk, since there may be a million.
        quarantined: Files and rows that are not used, each with the reason.
        source: Where the captions come from.
        notes: What a person should know of captions that are used.
    """

    entries: Sequence[Entry]
    quarantined: list[Quarantined]
    source: str = field(compare=False)
    notes: tuple[str, ...] = field(compare=False)


def find(data: Path, captions: str | None, *, captionless: bool = False) -> Corpus:
    """List the files of ``data`` with their captions.

    Args:
        data: The folder of paintings.
        captions: Table of captions, a path inside ``data``, or the name of a table in each of
            the folders below; None takes caption files, or else the files' names.
        captionless: Keep files without a caption, for someone will write it; the name of a
            file is none then.

    Raises:
        ArtifactError: The folder is absent or empty, or the table is broken; the text says
            what to do, and names all mistakes of the table.
    """
    found, quarantined = _files(data)
    if captions is not None:
        source = caption_sources.table(data, found, captions)
    else:
        beside = caption_sources.caption_files(data, found, captionless=captionless)
        source = beside or caption_sources.names(found, captionless=captionless)
    entries = Listed(Entry, _entries(found, source, captionless, quarantined))
    set_aside = [
        Quarantined(file=file, reason=reason) for file, reason in source.aside if reason
    ]
    if not len(entries) and all(map(source.aside.has, found)):
        packed = next(
            (f"; {one.file} is {one.reason}" for one in quarantined if one.reason == _PACKED),
            "",
        )
        raise ArtifactError(f"{data} holds no pictures{packed}; {_CURE.format(data=data)}.")
    quarantined += set_aside
    quarantined.sort(key=lambda one: one.file)
    return Corpus(entries, quarantined, source.name, source.notes)


def files(data: Path) -> list[str]:
    """Return the paths of all files inside ``data`` that can be pictures, sorted.

    Raises:
        ArtifactError: The folder is absent.
    """
    return list(_files(data)[0])


def nothing_usable(data: Path, quarantined: list[Quarantined]) -> ArtifactError:
    """Return the error for a folder in which every file was set aside; shows the first few."""
    first = "\n".join(f"  {one.file}: {one.reason}" for one in quarantined[:3])
    return ArtifactError(
        f"{data} holds no picture that can be used; {len(quarantined)} were set aside, "
        f"such as:\n{first}\n{_CURE.format(data=data)}."
    )


def _entries(
    found: Iterable[str], source: Source, captionless: bool, quarantined: list[Quarantined]
) -> Iterator[Entry]:
    """Yield the files that have a caption, and put the others into the quarantine."""
    for file in found:
        if source.aside.has(file):
            continue
        said = source.said(file) or Said("", refused=source.lacking.format(stem=stem(file)))
        if said.refused:
            quarantined.append(Quarantined(file=file, reason=said.refused))
        elif not (said.caption or captionless):
            quarantined.append(Quarantined(file=file, reason="its caption is empty"))
        else:
            artwork = tables.key(said.artwork) or tables.key(stem(file))
            yield Entry(file, said.caption, title(file), artwork)


def _files(data: Path) -> tuple[Texts, list[Quarantined]]:
    """Paths inside ``data``, sorted, and those that can be no pictures."""
    if not data.is_dir():
        what = "is not a folder" if data.exists() else "is absent"
        raise ArtifactError(f"{data} {what}; {_CURE.format(data=data)}.")
    unusable: list[Quarantined] = []
    return Texts(_possible(data, unusable)), unusable


def _possible(data: Path, unusable: list[Quarantined]) -> Iterator[str]:
    """Yield the files that can be pictures; the others are unusable."""
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
        elif PurePosixPath(file).suffix.lower() in PACKED:
            table = PurePosixPath(file).name.lower() == "metadata.parquet"
            unusable.append(Quarantined(file=file, reason=_PARQUET if table else _PACKED))
        else:
            yield file


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode
    except OSError:
        return 0  # opening it later reports the reason


def _walk(data: Path) -> Iterator[str]:
    seen = set()  # linked folders are followed, a link back to its own parent once
    waiting = [(os.fspath(data), "")]
    while waiting:
        folder, inside = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        below = []
        # Not os.walk, which holds the names of a whole folder.
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    below.append((entry.path, f"{inside}{entry.name}/"))
                else:
                    yield inside + entry.name
        waiting += reversed(below)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # opening it later reports the reason
