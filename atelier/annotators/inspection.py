"""Inspection of pictures: each file hashed, decoded, checked and measured once, with a journal.

The journal is append-only JSONL. It takes one line for each picture as soon as that picture
is done, keyed by the hash of the picture's bytes, so that a run that was killed goes on from it
even if files were renamed. A journal belongs to one ``Inspector.fingerprint``.
"""

import contextlib
import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from atelier import atomic, images, parallel
from atelier.config.fields import Params
from atelier.criteria import annotations
from atelier.criteria.annotations import Hash, Judgement
from atelier.criteria.stored import by_image
from atelier.criteria.stored.by_image import Places
from atelier.errors import ImageError
from atelier.images import Pixels, Size
from atelier.on_disk import Lazily
from atelier.reporting import Report

# Judges a picture by its sha256 and its pixels, uint8 ``[H, W, 3]``; sent to other processes.
PixelJudge = Callable[[str, Pixels], list[Judgement]]


class Inspected(Params):
    """What the bytes of one picture give: a line of the journal."""

    image: Hash
    width: int  # pixels, upright; 0 if the picture cannot be used
    height: int
    reason: str | None  # why the picture cannot be used
    judgements: list[Judgement]


@dataclass(frozen=True)
class Unopened:
    """A file that cannot be opened, and why."""

    reason: str


@dataclass(frozen=True)
class Limits:
    """Which pictures can be used, and what is shown of them.

    Attributes:
        smallest_side_pixels: Smaller pictures cannot be used.
        largest_pixels: Pictures of more pixels are not decoded.
        pixels: Side of the middle square that is measured; None measures the whole picture.
        sizes: Those that pictures are cut to in training, where they are no squares: each
            is judged as it is learned. None: all are squares.
    """

    smallest_side_pixels: int
    largest_pixels: int
    pixels: int | None
    sizes: tuple[Size, ...] | None = None

    def sizes_for(self, pixels: int) -> tuple[Size, ...] | None:
        """Return the sizes where a square has a side of ``pixels``."""
        if self.sizes is None or self.pixels is None:
            return None
        scale = pixels / self.pixels
        return tuple((round(high * scale), round(wide * scale)) for high, wide in self.sizes)


@dataclass(frozen=True)
class Inspector:
    """What is done to each picture, whatever process does it.

    Attributes:
        limits: Which pictures can be used.
        judge: Judges the pixels; None: the picture is hashed and checked only.
        identity: Names ``judge`` with its version and settings; empty without one.
    """

    limits: Limits
    judge: PixelJudge | None = None
    identity: str = ""

    def fingerprint(self) -> str:
        """Return a hash of all that a journal's lines depend on, apart from the pictures."""
        limits = self.limits
        settings = [
            self.identity,
            limits.pixels,
            limits.smallest_side_pixels,
            limits.largest_pixels,
            *(() if limits.sizes is None else limits.sizes),
        ]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def inspect(self, file: Path, image: str) -> Inspected:
        """Decode, check and judge one picture, of which ``image`` is the hash."""
        try:
            picture = images.read(file, self.limits.largest_pixels)
            images.refuse_if_small(picture.size, self.limits.smallest_side_pixels)
        except ImageError as error:
            return Inspected(image=image, width=0, height=0, reason=str(error), judgements=[])
        return Inspected(
            image=image,
            width=picture.width,
            height=picture.height,
            reason=None,
            judgements=[] if self.judge is None else self.judge(image, self._shown(picture)),
        )

    def _shown(self, picture: Image.Image) -> Pixels:
        """Return the pixels that are judged."""
        side = self.limits.pixels
        if side is None:
            return np.array(picture)
        return images.framed(picture, side, self.limits.sizes)

    def inspect_many(
        self, files: Sequence[Path], report: Report, journal: Path | None = None
    ) -> Sequence[Inspected | Unopened]:
        """Inspect files in several processes; interruptions do not change the result.

        Args:
            files: The pictures; one whose bytes the journal knows is not inspected again.
            report: Called with the number of pictures done.
            journal: The file to go on from and to write to. What is returned reads it again, so
                that one picture is in memory at a time, and of each only where its line begins.

        Raises:
            ArtifactError: A worker process was killed.
            DiskError: The journal cannot be written.
        """
        found = _InMemory() if journal is None else _InJournal(journal)
        work = partial(_inspect_new, self, found.known)
        places = array("q")  # of each picture; of those that cannot be opened ~index
        unopened: list[Unopened] = []
        set_aside = 0
        with (
            parallel.results(work, files, parallel.cores()) as results,
            found.adding() as add,
        ):
            for outcome in results:
                if isinstance(outcome, Unopened):
                    places.append(~len(unopened))
                    unopened.append(outcome)
                elif isinstance(outcome, Inspected):
                    places.append(add(outcome))
                else:
                    place = found.place(outcome)
                    if place is None:  # it shares 64 bits with another
                        place = add(self.inspect(files[len(places)], outcome))
                    places.append(place)
                set_aside += places[-1] < 0 or places[-1] in found.unusable
                report(len(places), {"set aside": set_aside})
        return Lazily(
            places, lambda place: unopened[~place] if place < 0 else found.read(place)
        )


class _InMemory:
    """Few pictures, of which none is known before; a place is an index."""

    def __init__(self) -> None:
        self.known = array("Q")
        self.unusable: set[int] = set()
        self._every: list[Inspected] = []

    @contextlib.contextmanager
    def adding(self) -> Iterator[Callable[[Inspected], int]]:
        """Yield what adds a picture and returns its place."""
        yield self._add

    def _add(self, one: Inspected) -> int:
        place = len(self._every)
        self._every.append(one)
        if one.reason is not None:
            self.unusable.add(place)
        return place

    def place(self, image: str) -> int | None:
        """Return None: no picture is known."""
        del image
        return None

    def read(self, place: int) -> Inspected:
        """Return a picture."""
        return self._every[place]


class _InJournal:
    """Pictures of a journal; a place is where a line begins."""

    def __init__(self, journal: Path) -> None:
        """Read a journal, which need not exist; cut off a torn last line."""
        self._journal = journal
        self.unusable: set[int] = set()
        self._starts = Places()
        for start, one in _lines(journal):
            self._starts.add(one.image, start)
            if one.reason is not None:
                self.unusable.add(start)
        self.known = self._starts.images()

    @contextlib.contextmanager
    def adding(self) -> Iterator[Callable[[Inspected], int]]:
        """Yield what appends a picture at once and returns its place."""
        with _appending(self._journal) as append:

            def add(one: Inspected) -> int:
                start = append(annotations.line(one))
                if one.reason is not None:
                    self.unusable.add(start)
                return start

            yield add

    def place(self, image: str) -> int | None:
        """Return the place of a picture that was known at the start; None: it was not."""
        return next((at for at in self._starts.of(image) if self.read(at).image == image), None)

    def read(self, place: int) -> Inspected:
        """Return a picture."""
        with self._journal.open("rb") as file:
            file.seek(place)
            return Inspected.model_validate_json(file.readline())


def known_images(journal: Path) -> frozenset[str]:
    """Return the hashes of the pictures in a journal, which need not exist."""
    return frozenset(one.image for _, one in _lines(journal))


def add(journal: Path, found: Iterable[Inspected]) -> None:
    """Add pictures that another machine inspected to a journal.

    Raises:
        DiskError: The journal cannot be written.
    """
    with _appending(journal) as append:
        append(annotations.lines(found))


def _inspect_new(
    inspector: Inspector, known: "array[int]", file: Path
) -> Inspected | str | Unopened:
    """Inspect a file unless the journal seems to hold its bytes. Runs in a worker.

    Args:
        inspector: What is done.
        known: Images of the journal, as ``Places.images`` has them.
        file: The picture.
    """
    try:
        image = images.sha256(file)
    except OSError as error:
        return Unopened(f"cannot be opened: {error.strerror}")
    return image if by_image.holds(known, image) else inspector.inspect(file, image)


@contextlib.contextmanager
def _appending(journal: Path) -> Iterator[Callable[[str], int]]:
    """Yield a function that appends lines at once and returns where they begin."""
    with atomic.clear_disk_errors(journal), journal.open("ab") as file:

        def append(lines: str) -> int:
            content = lines.encode()
            file.write(content)
            file.flush()
            return file.tell() - len(content)

        yield append


def _lines(journal: Path) -> Iterator[tuple[int, Inspected]]:
    """Yield the pictures of a journal and where their lines begin; cut off a torn last line."""
    if not journal.exists():
        return
    whole = 0
    with journal.open("rb") as file:
        for line in file:
            try:
                inspected = Inspected.model_validate_json(line)
            except ValidationError:
                break
            if not line.endswith(b"\n"):
                break
            yield whole, inspected
            whole += len(line)
    with journal.open("r+b") as file:
        file.truncate(whole)
