"""Labels of people, read from a table; ``label_studio`` reads those that it exports.

A table of labels has a header and the columns ``file`` (or ``image``, its sha256),
``criterion``, ``pole`` and optionally ``annotator`` and ``confidence``. A pole is
``positive`` or ``negative``, or its words in the criteria file; ``abstain`` and nothing are
silence. Criteria may go by their former paths. Several people may label one picture: each signs
their own judgements.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atelier.config.messages import explain
from atelier.criteria import tables
from atelier.criteria.annotations import Image, Judgement
from atelier.criteria.tree import Criterion, Pole, Tree
from atelier.errors import AnnotationError
from atelier.reading import UnreadableError, short

_SHOWN = 20  # mistakes that one message lists
_LINES = 10  # lines that one sentence names
_COLUMNS = ("file", "image", "criterion", "pole", "annotator", "confidence")
_SILENCE = {"", "abstain"}


@dataclass(frozen=True)
class Labels:
    """What a file of labels holds.

    Attributes:
        judgements: In the order of the file.
        passed_over: Sentences on what else it holds.
    """

    judgements: list[Judgement]
    passed_over: list[str]


@dataclass
class Reading:
    """A file of labels while it is read.

    Attributes:
        tree: The criteria.
        images: Hash of each picture, by its file and by the hash; see ``known``.
        judgements: Those found so far.
        mistakes: What does not fit so far.
    """

    tree: Tree
    images: Mapping[str, str]
    judgements: list[Judgement] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.paths = {
            tables.key(name): path
            for path, leaf in self.tree.leaves().items()
            for name in (path, *leaf.aliases)
        }
        self.hashes = {tables.key(name): image for name, image in self.images.items()}

    def add(self, where: str, image: str, criterion: str, pole: str, **signed: Any) -> None:
        """Take one label, or note why it cannot be taken."""
        path = self.paths.get(tables.key(criterion))
        if path is None:
            self.mistakes.append(f"{where}: the tree has no criterion {short(criterion)}")
            return
        known = self.hashes.get(tables.key(image))
        if known is None:
            self.mistakes.append(f"{where}: there is no picture {short(image)}")
            return
        try:
            said = _pole(pole, self.tree.criterion(path))
            if said is not None:
                judged = {"image": known, "criterion": path, "pole": said}
                self.judgements.append(Judgement.model_validate(judged | signed))
        except ValidationError as error:
            self.mistakes.append(f"{where}: {' '.join(explain(error).split())}")
        except ValueError as error:
            self.mistakes.append(f"{where}: {error}")

    def result(self, path: Path, passed_over: list[str]) -> Labels:
        """Return what was read.

        Raises:
            AnnotationError: It does not fit, every mistake; or it holds no judgement.
        """
        if self.mistakes:
            shown = "\n".join(f"  {mistake}" for mistake in self.mistakes[:_SHOWN])
            more = f"\n  and {len(self.mistakes) - _SHOWN} more"
            more = more if len(self.mistakes) > _SHOWN else ""
            raise AnnotationError(f"{path} does not fit:\n{shown}{more}")
        if not self.judgements:
            what = "; ".join(passed_over) or "it is empty"
            raise AnnotationError(f"{path} holds no judgement: {what}")
        return Labels(self.judgements, passed_over)


def known(images: Iterable[Image]) -> dict[str, str]:
    """Return the hash of each picture by its file and by the hash itself."""
    return {name: one.image for one in images for name in (one.file, one.image)}


def read_csv(
    path: Path, tree: Tree, images: Mapping[str, str], annotator: str | None
) -> Labels:
    """Read a table of labels.

    Args:
        path: The table.
        tree: The criteria.
        images: Hash of each picture, by what it may be called; see ``known``.
        annotator: Who signs rows without the column ``annotator``.

    Raises:
        AnnotationError: It does not fit; every mistake with its line.
    """
    found, reading = _table(path), Reading(tree, images)
    if not ({"criterion", "pole"} <= found.columns and found.columns & {"file", "image"}):
        raise AnnotationError(
            f"{path} should have the columns file (or image), criterion and pole; "
            f"{found.says()}"
        )
    if annotator is None and "annotator" not in found.columns:
        raise AnnotationError(
            f"{path} does not say who judged; add a column annotator, or name the person"
        )
    reading.mistakes += found.mistakes
    for row in found.rows:
        reading.add(
            f"line {row.line}",
            row.get("image", "file"),
            row.cells["criterion"],
            row.cells["pole"],
            annotator=_one_line(row.cells["annotator"]) or annotator,
            confidence=row.cells["confidence"] or 1.0,
        )
    silent = [row.line for row in found.rows if _words(row.cells["pole"]) in _SILENCE]
    lines = ", ".join(map(str, silent[:_LINES])) + ", …" * (len(silent) > _LINES)
    said = f"{len(silent)} rows have no pole and say nothing (lines {lines})"
    return reading.result(path, [said] * bool(silent))


def _table(path: Path) -> tables.Table:
    try:
        return tables.read(content(path), path.name, _COLUMNS)
    except UnreadableError as error:
        raise AnnotationError(f"{path}, {error}") from None


def content(path: Path) -> bytes:
    """Return the bytes of a file of labels.

    Raises:
        AnnotationError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise AnnotationError(f"{path} is absent; name a file of labels") from None
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror}") from None


def _one_line(said: str) -> str:
    return " ".join(unicodedata.normalize("NFC", said).split())


def _words(said: str) -> str:
    return _one_line(said).lower()


def _pole(said: str, leaf: Criterion) -> Pole | None:
    words = _words(said)
    if words in {"positive", _words(leaf.positive)}:
        return "positive"
    if words in {"negative", _words(leaf.negative)}:
        return "negative"
    if words in _SILENCE:
        return None
    raise ValueError(
        f"pole should be positive, negative or abstain, or {leaf.positive!r} or "
        f"{leaf.negative!r}, is {short(said)}"
    )
