"""Index of images by their hashes, and of a JSONL file of judgements, read when asked for.

A million images with five judgements each would fill gigabytes as objects. In memory are 16
bytes for each place of an image: 64 bits of its hash, and a number.
"""

import weakref
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from atelier.criteria.annotations import Judgement
from atelier.criteria.stored import rows

_RECENT = 2**16  # images that are not sorted in yet


def short(image: str) -> int:
    """Return 64 bits of an image's hash: of a million images hardly ever two have the same."""
    return int(image[:16], 16)


class Places:
    """Numbers by image: where a file speaks of it, or its place in a list."""

    def __init__(self) -> None:
        # Sorted by image; those of one image in the order in which they were added.
        self._images, self._numbers = array("Q"), array("q")
        self._recent: dict[int, list[int]] = {}

    def add(self, image: str, number: int) -> None:
        """Add a place of an image."""
        self._recent.setdefault(short(image), []).append(number)
        if len(self._recent) >= _RECENT:
            self._sort_in()

    def of(self, image: str) -> Iterator[int]:
        """Yield the places of an image, as they were added; hardly ever of another, too."""
        key = short(image)
        at = bisect_left(self._images, key)
        while at < len(self._images) and self._images[at] == key:
            yield self._numbers[at]
            at += 1
        yield from self._recent.get(key, ())

    def images(self) -> "array[int]":
        """Return 64 bits of each image, sorted."""
        self._sort_in()
        return self._images

    def numbers(self) -> Iterator[int]:
        """Yield all places, image by image."""
        self._sort_in()
        return iter(self._numbers)

    def _sort_in(self) -> None:
        for key, numbers in self._recent.items():
            self._images.extend([key] * len(numbers))
            self._numbers.extend(numbers)
        self._recent = {}
        order = np.argsort(np.array(self._images, np.uint64), kind="stable")
        self._images = array("Q", np.array(self._images, np.uint64)[order].tobytes())
        self._numbers = array("q", np.array(self._numbers, np.int64)[order].tobytes())


def holds(images: "array[int]", image: str) -> bool:
    """Say whether an image seems to be among those of ``Places.images``."""
    key = short(image)
    at = bisect_left(images, key)
    return at < len(images) and images[at] == key


class Judgements(Mapping[str, list[Judgement]]):
    """The judgements of a file by image, in the order of the file."""

    def __init__(
        self, path: Path, see: Callable[[int, Judgement], None] = lambda number, one: None
    ) -> None:
        """Read the file once.

        Args:
            path: A JSONL file.
            see: Receives each line by its number, from 1.

        Raises:
            ArtifactError: The file is absent.
            AnnotationError: A line does not fit, named by its number; or it is not UTF-8.
        """
        self._path = path
        self._starts = Places()  # of runs of lines about one image
        before = ""
        for number, (row, start) in enumerate(rows.located(path, Judgement), start=1):
            see(number, row)
            if row.image != before:
                self._starts.add(row.image, start)
            before = row.image
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)

    def __getitem__(self, image: str) -> list[Judgement]:
        """Return what the file says of an image.

        Raises:
            ArtifactError: The file was changed since it was first read.
        """
        found = [one for start in self._starts.of(image) for one in self._run(start, image)]
        if not found:
            raise KeyError(image)
        return found

    def __iter__(self) -> Iterator[str]:
        starts = self._starts.numbers()
        return iter(dict.fromkeys(next(self._from(start)).image for start in starts))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _run(self, start: int, image: str) -> Iterator[Judgement]:
        for number, one in enumerate(self._from(start)):
            if number == 0 and short(one.image) != short(image):
                raise rows.changed(self._path)
            if one.image != image:
                return
            yield one

    def _from(self, start: int) -> Iterator[Judgement]:
        self._file.seek(start)
        for lines in self._file:
            for line in lines.splitlines():
                try:
                    yield Judgement.model_validate_json(line)
                except ValidationError:
                    raise rows.changed(self._path) from None
