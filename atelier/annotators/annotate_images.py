"""Every picture looked at once: hashed, read, judged; what is known survives a ``kill -9``.

A journal, append-only JSONL, takes one line a picture as soon as it is judged. It is keyed by
the hash of the picture's bytes, so a run that goes on skips what is in it, whatever the files
are called by then. It belongs to one ``ImageAnnotator.fingerprint``: other criteria, another
annotator or other limits need a journal of their own.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from atelier import atomic, images, parallel
from atelier.annotators import Annotator
from atelier.config.fields import Params
from atelier.criteria import annotations
from atelier.criteria.annotations import Hash, Image, Judgement, Quarantined
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import Tree
from atelier.errors import ImageError
from atelier.reporting import Report


class Examined(Params):
    """What is known of one picture, by its bytes alone: a line of the journal."""

    image: Hash
    width: int  # pixels, upright; 0 if it cannot be used
    height: int
    reason: str | None  # why it cannot be used
    judgements: list[Judgement]


# A picture seen now, the hash of one that is in the journal, or why a file cannot be opened.
_Outcome = Examined | str | Quarantined


@dataclass(frozen=True)
class ImageAnnotator:
    """What is done to each picture.

    Attributes:
        data: The folder of paintings.
        tree: The criteria.
        annotator: Who judges.
        pixels: Side of the square at which pictures are judged, as the painter sees them.
        smallest_side_pixels: Smaller pictures are set aside.
        largest_pixels: Pictures of more pixels are set aside unread.
    """

    data: Path
    tree: Tree
    annotator: Annotator
    pixels: int
    smallest_side_pixels: int
    largest_pixels: int

    def fingerprint(self) -> str:
        """Return a hash of all that a journal's lines depend on beside the pictures."""
        settings = [
            self.tree.model_dump(),
            self.annotator.identity,
            self.pixels,
            self.smallest_side_pixels,
            self.largest_pixels,
        ]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def examine(self, file: str, image: str) -> Examined:
        """Read and judge one picture, of which ``image`` is the hash."""
        try:
            picture = images.read(self.data / file, self.largest_pixels)
            if min(picture.size) < self.smallest_side_pixels:
                raise ImageError(
                    f"{picture.width} x {picture.height} pixels; its shorter side is below "
                    f"annotate.smallest_side_pixels, {self.smallest_side_pixels}"
                )
        except ImageError as error:
            return Examined(image=image, width=0, height=0, reason=str(error), judgements=[])
        return Examined(
            image=image,
            width=picture.width,
            height=picture.height,
            reason=None,
            judgements=self.annotator.judge(image, images.square(picture, self.pixels)),
        )


@dataclass(frozen=True)
class Examination:
    """The whole corpus, in its order."""

    images: list[Image]
    judgements: list[Judgement]
    quarantined: list[Quarantined]


def examine(
    entries: Sequence[Entry],
    examiner: ImageAnnotator,
    journal: Path,
    *,
    processes: int,
    report: Report,
) -> Examination:
    """Examine all pictures; the result is the same however often the run was interrupted.

    Of files with the same bytes the first is kept.

    Args:
        entries: The corpus.
        examiner: What is done to each picture.
        journal: The file that survives; its folder exists, the file need not.
        processes: Worker processes at most; the result does not depend on it.
        report: Told the number of pictures done.

    Raises:
        ArtifactError: A worker process was killed.
        DiskError: The journal cannot be written.
    """
    known = _resume(journal)
    look = partial(_look, examiner, frozenset(known))
    outcomes: list[str | Quarantined] = []
    set_aside = 0
    files = [entry.file for entry in entries]
    with (
        parallel.results(look, files, processes) as results,
        atomic.clear_disk_errors(journal),
        journal.open("a", encoding="utf-8") as lines,
    ):
        for done, outcome in enumerate(results, start=1):
            settled = _settle(outcome, known, lines)
            outcomes.append(settled)
            set_aside += isinstance(settled, Quarantined) or bool(known[settled].reason)
            report(done, {"set aside": set_aside})
    return _gather(entries, outcomes, known)


def judged(journal: Path) -> frozenset[str]:
    """Return the hashes of the pictures that the journal knows; it need not exist."""
    return frozenset(_resume(journal))


def note(journal: Path, found: Iterable[Examined]) -> None:
    """Put pictures that were judged elsewhere into the journal, where ``examine`` finds them.

    Raises:
        DiskError: The journal cannot be written.
    """
    with atomic.clear_disk_errors(journal), journal.open("a", encoding="utf-8") as lines:
        lines.write(annotations.lines(found))


def within_captions(examined: Examination, tree: Tree) -> Examination:
    """Leave out judgements by criteria that a picture's caption rules out."""
    within = {one.image: tree.conceivable(one.caption).keys() for one in examined.images}
    kept = [one for one in examined.judgements if one.criterion in within[one.image]]
    return Examination(examined.images, kept, examined.quarantined)


def _look(examiner: ImageAnnotator, known: frozenset[str], file: str) -> _Outcome:
    """Examine one file, unless the journal knows its bytes. Runs in a worker."""
    try:
        image = images.sha256(examiner.data / file)
    except OSError as error:
        return Quarantined(file=file, reason=f"cannot be opened: {error.strerror}")
    return image if image in known else examiner.examine(file, image)


def _settle(outcome: _Outcome, known: dict[str, Examined], lines: TextIO) -> str | Quarantined:
    """Put a picture that is new into the journal; return by which hash it is known."""
    if not isinstance(outcome, Examined):
        return outcome
    if outcome.image not in known:
        known[outcome.image] = outcome
        lines.write(annotations.line(outcome))
        lines.flush()
    return outcome.image


def _resume(journal: Path) -> dict[str, Examined]:
    """What the journal knows; a torn last line is cut off."""
    known: dict[str, Examined] = {}
    if not journal.exists():
        return known
    whole = 0
    for line in journal.read_bytes().splitlines(keepends=True):
        try:
            examined = Examined.model_validate_json(line)
        except ValidationError:
            break
        if not line.endswith(b"\n"):
            break
        known[examined.image] = examined
        whole += len(line)
    with journal.open("r+b") as file:
        file.truncate(whole)
    return known


def _gather(
    entries: Sequence[Entry],
    outcomes: Sequence[str | Quarantined],
    known: dict[str, Examined],
) -> Examination:
    first: dict[str, str] = {}
    gathered = Examination([], [], [])
    for entry, outcome in zip(entries, outcomes, strict=True):
        if isinstance(outcome, Quarantined):
            gathered.quarantined.append(outcome)
            continue
        reason = known[outcome].reason
        if reason is None and outcome in first:
            reason = f"has the same bytes as {first[outcome]}"
        if reason is not None:
            gathered.quarantined.append(Quarantined(file=entry.file, reason=reason))
            continue
        first[outcome] = entry.file
        gathered.images.append(_row(entry, known[outcome]))
        gathered.judgements.extend(known[outcome].judgements)
    return gathered


def _row(entry: Entry, examined: Examined) -> Image:
    return Image(
        image=examined.image,
        file=entry.file,
        width=examined.width,
        height=examined.height,
        caption=entry.caption,
        artwork=entry.artwork,
    )
