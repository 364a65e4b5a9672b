"""Answers that were paid for: append-only JSONL that outlives runs, success and ``kill -9``.

A line is one answer of a model, fit or not, with what it cost. Fit answers are found again by
picture and by a hash of all that was asked (words, schema, model, temperature, vote), so what
is asked in the same words is never asked twice, and one criterion that is worded anew asks
only the questions in which it stands.

Lines stay on the disk; the memory holds where they begin.
"""

import fcntl
import hashlib
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pydantic import ValidationError

from atelier import atomic
from atelier.config.fields import Params
from atelier.criteria import annotations
from atelier.criteria.annotations import Hash
from atelier.errors import AnnotationError


class Answer(Params):
    """One answer of a model to one question about one picture."""

    image: Hash
    asked: str  # hash of the question and of who was asked
    topic: str
    criteria: str  # domain, version and hash of the tree; for sums and for people
    text: str
    unfit: str | None  # why it was not taken
    prompt_tokens: int
    completion_tokens: int


class ResponseCache:
    """The file of answers of one model; one process writes to it at a time.

    Args:
        path: The file; it is made if absent, and a torn last line is cut off.
        criteria: Of which tree the spending is summed, as ``Answer.criteria``.

    Raises:
        AnnotationError: Another process writes to it, or a line in its midst is damaged.
        DiskError: It cannot be written.
    """

    def __init__(self, path: Path, criteria: str) -> None:
        self.path, self.criteria = path, criteria
        self.prompt_tokens = self.completion_tokens = 0
        self._places: dict[bytes, array[int]] = {}
        with atomic.clear_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk refused is not written later, behind a torn line.
            self._file = path.open("a+b", buffering=0)
        try:
            self._lock()
            self._load()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "ResponseCache":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def of(self, image: str) -> dict[str, str]:
        """Return the fit answers about ``image``, by what was asked."""
        places = self._places.get(bytes.fromhex(image))
        if places is None:
            return {}
        with self.path.open("rb") as file:
            answers = [_at(file, place) for place in places]
        return {answer.asked: answer.text for answer in answers}

    def add(self, answer: Answer) -> None:
        """Write down an answer before anything is made of it.

        Raises:
            DiskError: It cannot be written.
        """
        with atomic.clear_disk_errors(self.path):
            place = self._file.seek(0, os.SEEK_END)
            line = annotations.line(answer).encode()
            while line:
                line = line[self._file.write(line) :]
        self._note(answer, place)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnnotationError(
                f"{self.path} is in use: another run is asking the same model; let it end, or "
                "stop it, and run again"
            ) from None

    def _load(self) -> None:
        place = 0
        with self.path.open("rb") as file:
            for line, answer in self._whole(file):
                self._note(answer, place)
                place += len(line)
        self._file.truncate(place)

    def _whole(self, file: BinaryIO) -> Iterator[tuple[bytes, Answer]]:
        """Yield the whole lines; only the last may be torn."""
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield line, Answer.model_validate_json(line)
            except ValidationError:
                raise AnnotationError(
                    f"{self.path}, line {number} is damaged; remove that line (its question is "
                    "asked again), or move the file away to ask all of them again"
                ) from None

    def _note(self, answer: Answer, place: int) -> None:
        if answer.criteria == self.criteria:
            self.prompt_tokens += answer.prompt_tokens
            self.completion_tokens += answer.completion_tokens
        if answer.unfit is None:
            # An offset of eight bytes: ten thousand pictures are a few megabytes.
            self._places.setdefault(bytes.fromhex(answer.image), array("Q")).append(place)


def _at(file: BinaryIO, place: int) -> Answer:
    file.seek(place)
    return Answer.model_validate_json(file.readline())


def digest(*parts: str) -> str:
    """Return a short hash of texts, in their order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
