"""Packed Hugging Face data sets (parquet, Arrow): pictures and captions, row by row.

It reads what ``save_to_disk`` writes, and the parquet files of the hub, with pyarrow alone. An
image column contains bytes, or a record of ``bytes`` and ``path``.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from atelier import reading
from atelier.criteria.caption_sources import CAPTION
from atelier.errors import ArtifactError
from atelier.images import FORMATS

SUFFIXES = (".parquet", ".arrow")
_IMAGES = ("image", "img", "jpg", "png", "picture")  # usual names of an image column
_CAPTIONS = (*CAPTION, "prompt", "description")
_ROWS = 32  # read at once
_LONGEST = 300  # characters of a library's message that ours repeats
_SHARD = re.compile(r"(.+?)-\d+(-of-\d+)?")
_SAFE = re.compile(r"[\w(][\w .()\-]{0,150}")
_ENDINGS = {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}


@dataclass(frozen=True)
class Columns:
    """Which columns are read; None: there is none."""

    image: str
    caption: str | None
    artwork: str | None


@dataclass(frozen=True)
class Picture:
    """One row.

    Attributes:
        split: train, test, …; "" where the files name none.
        name: The file's name in the data set, or the row's number, with its suffix.
        content: The file; None where the row holds none.
        caption: "" if there is none.
        artwork: Likewise.
    """

    split: str
    name: str
    content: bytes | None
    caption: str
    artwork: str


def files(source: Path) -> list[Path]:
    """Return the files of a data set: of a folder, or the one file.

    Raises:
        ArtifactError: There are none.
    """
    one = [source] if source.is_file() and source.suffix.lower() in SUFFIXES else []
    found = one or sorted(
        path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES
        and not path.name.startswith("cache-")
    )  # fmt: skip
    if not found:
        raise ArtifactError(
            f"{source} contains no data set: there is no {' or '.join(SUFFIXES)} file in it"
        )
    return found


def columns(file: Path, image: str | None, caption: str | None) -> Columns:
    """Return which columns to read: those that are named, else the usual ones.

    Raises:
        ArtifactError: There is no such column, or it is not clear which; names those there are.
    """
    schema = _schema(file)
    images = [field.name for field in schema if _holds_pictures(field)]
    texts = [field.name for field in schema if _holds_texts(field)]
    there = f"{file} has the columns {reading.clipped(', '.join(schema.names))}"
    if image not in {None, *images}:
        raise ArtifactError(f"{there}; {image!r} is none of pictures")
    if caption not in {None, *texts}:
        raise ArtifactError(f"{there}; {caption!r} is none of texts")
    usual = [name for name in _IMAGES if name in images]
    chosen = image or next(iter(usual), images[0] if len(images) == 1 else None)
    if chosen is None:
        raise ArtifactError(f"{there}; name the one with the pictures by --image")
    if caption is None:
        caption = next((name for name in _CAPTIONS if name in texts), None)
    return Columns(chosen, caption, "artwork" if "artwork" in texts else None)


def pictures(found: Sequence[Path], read: Columns) -> Iterator[Picture]:
    """Yield the rows of all files.

    Raises:
        ArtifactError: A file is damaged, or lacks a column.
    """
    for file in found:
        for number, row in enumerate(_rows(file, read)):
            value = row[read.image]
            content = value.get("bytes") if isinstance(value, dict) else value
            path = str((value.get("path") if isinstance(value, dict) else None) or "")
            yield Picture(
                split_of(file),
                _name(path, f"{file.stem}-{number:06}", content),
                content,
                _text(row.get(read.caption or "")),
                _text(row.get(read.artwork or "")),
            )


def count(found: Sequence[Path]) -> int:
    """Return the number of rows.

    Raises:
        ArtifactError: A file is damaged.
    """
    total = 0
    for file in found:
        with _whole(file):
            if file.suffix.lower() == ".parquet":
                total += pq.read_metadata(file).num_rows
            else:
                total += sum(batch.num_rows for batch in _arrow(file))
    return total


def split_of(file: Path) -> str:
    """Return the split of a file, such as train of ``train-00000-of-00002.parquet``.

    Files that are called ``data-…`` or by a number are of the split that their folder names.
    """
    shard = _SHARD.fullmatch(file.stem)
    name = shard[1] if shard else file.stem
    return file.parent.name if name == "data" or name.isdigit() else name


def _schema(file: Path) -> Any:
    with _whole(file):
        parquet = file.suffix.lower() == ".parquet"
        schema = pq.read_schema(file) if parquet else _arrow(file).schema
        len(schema.names)  # decodes them: those of a damaged file need not be UTF-8
        return schema


@contextlib.contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Refuse a file in words, whatever of it pyarrow or Python cannot read."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, LookupError, ValueError) as error:
        said = " ".join(str(error).split())[:_LONGEST]
        raise ArtifactError(f"{file} is damaged: {said}") from None


def _arrow(file: Path) -> Any:
    """A reader of Arrow's stream format, which ``save_to_disk`` writes."""
    return pa.ipc.open_stream(pa.memory_map(str(file)))


def _rows(file: Path, read: Columns) -> Iterator[dict[str, Any]]:
    names = [name for name in (read.image, read.caption, read.artwork) if name is not None]
    missing = sorted(set(names) - set(_schema(file).names))
    if missing:
        raise ArtifactError(f"{file} has no column {', '.join(missing)}, as the first file has")
    with _whole(file):
        if file.suffix.lower() == ".parquet":
            batches = pq.ParquetFile(file).iter_batches(batch_size=_ROWS, columns=names)
        else:
            batches = (batch.select(names) for batch in _arrow(file))
        for batch in batches:
            batch.validate(full=True)  # else offsets of a damaged file lead out of memory
            for start in range(0, batch.num_rows, _ROWS):
                yield from batch.slice(start, _ROWS).to_pylist()


def _holds_pictures(column: Any) -> bool:
    kind = column.type
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return bool(place >= 0 and _is_binary(kind.field(place).type))
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_texts(column: Any) -> bool:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    )


def _text(value: Any) -> str:
    """A cell as a text; of a list of captions the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    return "" if value is None else str(value)


def _name(path: str, number: str, content: bytes | None) -> str:
    """A name for the file: its own where that is harmless, with the suffix of its content."""
    own = PurePosixPath(path.replace("\\", "/"))
    stem = own.stem if _SAFE.fullmatch(own.stem) else number
    return stem + (_ending(content) or own.suffix.lower())


def _ending(content: bytes | None) -> str:
    try:
        with Image.open(io.BytesIO(content or b""), formats=FORMATS) as image:
            return _ENDINGS.get(image.format or "", f".{(image.format or '').lower()}")
    except Exception:  # what it is, annotate says
        return ""
