"""Judgement records (image, criterion, pole, annotator, confidence) and their JSONL files."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from atelier.config.fields import Fraction, Params
from atelier.config.messages import explain
from atelier.criteria.tree import Pole
from atelier.errors import AnnotationError, ArtifactError


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$"), BeforeValidator(_lower)]


class Judgement(Params):
    """What one annotator says of one criterion on one image; abstaining is saying nothing."""

    image: Hash  # sha256 of the file's bytes
    criterion: str  # path in the tree
    pole: Pole
    annotator: str  # name and version, as `measured-1`
    confidence: Fraction


class Rationale(Params):
    """What the annotator of one judgement saw, in one line."""

    image: Hash
    criterion: str
    annotator: str
    evidence: str


class Image(Params):
    """A picture of the corpus that annotate accepted."""

    image: Hash  # sha256 of the file's bytes
    file: str  # path inside data/
    width: int  # pixels, upright
    height: int
    caption: str  # y
    artwork: str  # the split keeps it together; default: the path without suffix


class Quarantined(Params):
    """A file that annotate set aside."""

    file: str
    reason: str


class Record(Params):
    """What training reads: one image with its caption and active attributes."""

    image: Hash
    file: str
    caption: str
    positive: list[str]  # A_pos: paths of criteria present with their good pole
    negative: list[str]  # A_neg: the same with their bad pole
    confidence: dict[str, Fraction] = Field(default_factory=dict)  # of each active criterion

    def confidence_in(self, criterion: str) -> float:
        """Return the annotator's confidence in an active criterion; 1 if it gave none."""
        return self.confidence.get(criterion, 1.0)


Row = TypeVar("Row", bound=Params)


def line(row: Params) -> str:
    """Return ``row`` as one line of JSONL, newline included."""
    return json.dumps(row.model_dump(), ensure_ascii=False) + "\n"


def lines(rows: Iterable[Params]) -> str:
    """Return ``rows`` as JSONL."""
    return "".join(line(row) for row in rows)


def read(path: Path, kind: type[Row]) -> list[Row]:
    """Read a JSONL file of ``kind``.

    Raises:
        ArtifactError: The file is absent.
        AnnotationError: A line does not fit, named by its number; or it is not UTF-8.
    """
    return list(stream(path, kind))


def stream(path: Path, kind: type[Row]) -> Iterator[Row]:
    """Yield the rows of a JSONL file of ``kind``, of which one is in memory at a time.

    Raises:
        ArtifactError: The file is absent.
        AnnotationError: A line does not fit, named by its number; or it is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            yield from _rows(file, path, kind)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is absent; run `dvc repro {path.parent.name}`") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not UTF-8 ({error}); is it damaged?") from None


def _rows(file: Iterable[str], path: Path, kind: type[Row]) -> Iterator[Row]:
    for number, text in enumerate(file, start=1):
        try:
            yield kind.model_validate_json(text)
        except ValidationError as error:
            raise AnnotationError(
                f"{path}, line {number} does not fit:\n{explain(error)}"
            ) from None
