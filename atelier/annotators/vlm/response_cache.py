"""Response cache: paid answers of a model in append-only JSONL that no run deletes.

A line is one answer of a model, fit or not, with its tokens. Fit answers are found again by
picture and by a hash of all that was asked (text, schema, model, temperature, vote). So
nothing is asked twice in the same words, and a reworded criterion asks only the prompts that
contain it.

Lines stay on the disk; the memory holds their offsets.
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


class Response(Params):
    """One answer of a model to one prompt about one picture."""

    image: Hash
    asked: str  # hash of the prompt and of the model that was asked for
    topic: str
    criteria: str  # domain, version and hash of the tree; for sums and for people
    text: str
    unfit: str | None  # why it cannot be used
    prompt_tokens: int
    completion_tokens: int
    answered_by: str | None = None  # the model as the server named it; older lines lack it


class ResponseCache:
    """The responses of one model in a file; one process writes to it at a time.

    Args:
        path: The file; it is made if absent, and a torn last line is cut off.
        criteria: The tree of which tokens are summed, as ``Response.criteria``.

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

    def of(self, image: str) -> dict[str, Response]:
        """Return the fit responses about ``image`` by the hash of what was asked."""
        places = self._places.get(bytes.fromhex(image))
        if places is None:
            return {}
        with self.path.open("rb") as file:
            responses = [_at(file, place) for place in places]
        return {response.asked: response for response in responses}

    def add(self, response: Response) -> None:
        """Append a response, before anything is made of it.

        Raises:
            DiskError: It cannot be written.
        """
        with atomic.clear_disk_errors(self.path):
            place = self._file.seek(0, os.SEEK_END)
            line = annotations.line(response).encode()
            while line:
                line = line[self._file.write(line) :]
        self._note(response, place)

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
            for line, response in self._whole(file):
                self._note(response, place)
                place += len(line)
        self._file.truncate(place)

    def _whole(self, file: BinaryIO) -> Iterator[tuple[bytes, Response]]:
        """Yield the whole lines; only the last may be torn."""
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield line, Response.model_validate_json(line)
            except ValidationError:
                raise AnnotationError(
                    f"{self.path}, line {number} is damaged; remove that line (its prompt is "
                    "sent again), or move the file away to send all of them again"
                ) from None

    def _note(self, response: Response, place: int) -> None:
        if response.criteria == self.criteria:
            self.prompt_tokens += response.prompt_tokens
            self.completion_tokens += response.completion_tokens
        if response.unfit is None:
            # An offset of eight bytes: ten thousand pictures are a few megabytes.
            self._places.setdefault(bytes.fromhex(response.image), array("Q")).append(place)


def _at(file: BinaryIO, place: int) -> Response:
    file.seek(place)
    return Response.model_validate_json(file.readline())


def digest(*parts: str) -> str:
    """Return a short hash of texts, in their order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
