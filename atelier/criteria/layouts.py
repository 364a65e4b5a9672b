"""Folder layouts: detects which one a folder of pictures has, and the setting that reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atelier import reading
from atelier.criteria import caption_sources, dataset, tables

_SUFFIXES = {".csv", ".tsv", ".jsonl", ".ndjson", ".json"}
_LARGEST = 1 << 28  # bytes of a table; larger ones are not looked into


@dataclass(frozen=True)
class Layout:
    """One source of captions in a folder.

    Attributes:
        name: In words.
        captions: The value of ``annotate.captions`` that takes it.
    """

    name: str
    captions: str | None

    def setting(self) -> str:
        """Return the line of a profile that takes this source."""
        return f"annotate.captions: {'null' if self.captions is None else self.captions}"


def of(data: Path) -> list[Layout]:
    """Return the sources of captions that a folder has; the first one is the best guess.

    Raises:
        ArtifactError: The folder is absent.
    """
    found = dataset.files(data)
    layouts = [_of_table(data, name) for name in _tables(data, found)]
    beside = caption_sources.caption_files(data, found, captionless=True)
    if beside is not None:
        layouts.append(Layout("caption files beside the pictures", None))
    elif found:
        layouts.append(Layout("file names", None))
    return layouts


def unread(data: Path) -> dict[str, str]:
    """Return why the files that look like tables are none of captions."""
    names = [file for file in dataset.files(data) if _suffix(file) in _SUFFIXES]
    return {name: why for name in names if (why := _why(data / name))}


def _why(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            return f"it has more than {_LARGEST >> 20} MiB, and was not looked into"
        found = caption_sources.read_table(path)
    except (OSError, reading.UnreadableError) as error:
        return str(error)
    named = caption_sources.names_captions(found)
    return "" if named else f"it has no columns file and caption; {found.says()}"


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _tables(data: Path, found: Sequence[str]) -> list[str]:
    """Tables of captions: of the top folder; else by the name that they have further down."""
    names = [file for file in found if _suffix(file) in _SUFFIXES]
    usual = {name: place for place, name in enumerate(caption_sources.USUAL)}
    top = [name for name in names if "/" not in name and _table(data / name)]
    if top:
        return sorted(top, key=lambda name: (usual.get(name.lower(), len(usual)), name))
    below = [name for name in names if PurePosixPath(name).name.lower() in usual]
    found_below = [PurePosixPath(name).name for name in below if _table(data / name)]
    return list(dict.fromkeys(found_below))


def _of_table(data: Path, name: str) -> Layout:
    table = _table(data / name)
    if table is None:
        return Layout(f"Hugging Face ImageFolder, {name} in the folders", name)
    ours = table.columns.intersection((caption_sources.FILE[0], caption_sources.CAPTION[0]))
    if ours and name.lower() in caption_sources.KOHYA:
        return Layout(f"kohya's metadata, {name}", name)
    return Layout(f"{'table' if ours else 'Hugging Face ImageFolder'}, {name}", name)


def _table(path: Path) -> tables.Table | None:
    """A table of captions; None if it is no such table."""
    try:
        if path.stat().st_size > _LARGEST:
            return None
        found = caption_sources.read_table(path)
    except (OSError, reading.UnreadableError):
        return None
    known = bool(found.rows) or path.name.lower() in caption_sources.USUAL
    return found if known and caption_sources.names_captions(found) else None
