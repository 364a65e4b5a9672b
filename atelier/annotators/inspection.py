"""Inspection of pictures: each file hashed, decoded, checked and measured once, with a journal.

The journal is append-only JSONL. It takes one line for each picture as soon as that picture
is done, keyed by the hash of the picture's bytes, so that a run that was killed goes on from it
even if files were renamed. A journal belongs to one ``Inspector.fingerprint``.
"""

import contextlib
import hashlib
import json
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
from atelier.errors import ImageError
from atelier.images import Pixels, Size
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
    ) -> list[Inspected | Unopened]:
        """Inspect files in several processes; interruptions do not change the result.

        Args:
            files: The pictures; of two with the same bytes one is inspected.
            report: Called with the number of pictures done.
            journal: The file to go on from and to write to.

        Raises:
            ArtifactError: A worker process was killed.
            DiskError: The journal cannot be written.
        """
        known = {} if journal is None else _read(journal)
        work = partial(_inspect_new, self, frozenset(known))
        outcomes: list[str | Unopened] = []
        set_aside = 0
        with (
            parallel.results(work, files, parallel.cores()) as results,
            _appending(journal) as append,
        ):
            for done, outcome in enumerate(results, start=1):
                if isinstance(outcome, Inspected):
                    if outcome.image not in known:
                        known[outcome.image] = outcome
                        append(annotations.line(outcome))
                    outcome = outcome.image
                outcomes.append(outcome)
                set_aside += isinstance(outcome, Unopened) or bool(known[outcome].reason)
                report(done, {"set aside": set_aside})
        return [one if isinstance(one, Unopened) else known[one] for one in outcomes]


def known_images(journal: Path) -> frozenset[str]:
    """Return the hashes of the pictures in a journal, which need not exist."""
    return frozenset(_read(journal))


def add(journal: Path, found: Iterable[Inspected]) -> None:
    """Add pictures that another machine inspected to a journal.

    Raises:
        DiskError: The journal cannot be written.
    """
    with _appending(journal) as append:
        append(annotations.lines(found))


def _inspect_new(
    inspector: Inspector, known: frozenset[str], file: Path
) -> Inspected | str | Unopened:
    """Inspect a file unless the journal holds its bytes. Runs in a worker."""
    try:
        image = images.sha256(file)
    except OSError as error:
        return Unopened(f"cannot be opened: {error.strerror}")
    return image if image in known else inspector.inspect(file, image)


@contextlib.contextmanager
def _appending(journal: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that appends lines at once; without a journal it does nothing."""
    if journal is None:
        yield lambda lines: None
        return
    with atomic.clear_disk_errors(journal), journal.open("a", encoding="utf-8") as file:

        def append(lines: str) -> None:
            file.write(lines)
            file.flush()

        yield append


def _read(journal: Path) -> dict[str, Inspected]:
    """Return the pictures of a journal by hash; cut off a torn last line."""
    known: dict[str, Inspected] = {}
    if not journal.exists():
        return known
    whole = 0
    for line in journal.read_bytes().splitlines(keepends=True):
        try:
            inspected = Inspected.model_validate_json(line)
        except ValidationError:
            break
        if not line.endswith(b"\n"):
            break
        known[inspected.image] = inspected
        whole += len(line)
    with journal.open("r+b") as file:
        file.truncate(whole)
    return known
