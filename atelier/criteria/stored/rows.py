"""Rows of a JSONL file as a sequence: each is read from the file whenever it is asked for.

In memory are 8 bytes for each row: where its line begins.
"""

import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic

from pydantic import ValidationError

from atelier.criteria import annotations
from atelier.criteria.annotations import Row
from atelier.errors import ArtifactError


class StoredRows(Sequence[Row], Generic[Row]):
    """The rows of one file, in its order."""

    def __init__(self, path: Path, kind: type[Row]) -> None:
        """Read the file once.

        Raises:
            ArtifactError: The file is absent.
            AnnotationError: A line does not fit, named by its number; or it is not UTF-8.
        """
        self._path, self._kind = path, kind
        self._starts = array("q")
        for _, start in located(path, kind):
            self._starts.append(start)
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Row]:
        return annotations.stream(self._path, self._kind)

    def __getitem__(self, place: Any) -> Any:
        """Return a row, or for a slice a list of rows.

        Raises:
            ArtifactError: The file was changed since it was first read.
        """
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        self._file.seek(self._starts[place])
        try:
            return self._kind.model_validate_json(self._file.readline().splitlines()[0])
        except (ValidationError, IndexError):
            raise changed(self._path) from None


def located(path: Path, kind: type[Row]) -> Iterator[tuple[Row, int]]:
    """Yield the rows of a JSONL file, and the first byte of each.

    Raises:
        ArtifactError: The file is absent.
        AnnotationError: A line does not fit, named by its number; or it is not UTF-8.
    """
    return zip(annotations.stream(path, kind), _line_starts(path), strict=True)


def changed(path: Path) -> ArtifactError:
    """Return the error for a file that is another than the one that was read before."""
    return ArtifactError(f"{path} was changed while it was in use; run the same command again")


def _line_starts(path: Path) -> Iterator[int]:
    """Where the lines of a file begin, which may end as on any system."""
    start = 0
    with path.open("rb") as file:
        for lines in file:
            for line in lines.splitlines(keepends=True):
                yield start
                start += len(line)
