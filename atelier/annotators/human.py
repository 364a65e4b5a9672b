"""What people say of pictures: read from CSV and from Label Studio, and asked through it.

A table of labels is CSV with a header and the columns ``file`` (or ``image``, its sha256),
``criterion``, ``pole`` and optionally ``annotator`` and ``confidence``. A pole is
``positive`` or ``negative``, or its words in the criteria file; ``abstain`` and nothing are
silence; ``silent_rows`` counts them. Criteria may go by their former paths.

Label Studio is given a labelling interface built from the tree (``interface``) and its tasks
(``tasks``), and exports JSON, which ``read_label_studio`` reads. Several people may label one
picture: each signs their own judgements.
"""

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from pydantic import ValidationError

from atelier.config.messages import explain
from atelier.criteria import tables
from atelier.criteria.annotations import Image, Judgement
from atelier.criteria.tree import Branch, Criterion, Pole, Tree
from atelier.errors import AnnotationError
from atelier.reading import UnreadableError, json_values, short

_SHOWN = 20  # mistakes that one message lists
_PICTURE = "picture"  # name of the image in the interface
_COLUMNS = ("file", "image", "criterion", "pole", "annotator", "confidence")
_SILENCE = {"", "abstain"}


@dataclass
class _Reading:
    """What is being read, and what is wrong with it so far."""

    tree: Tree
    images: Mapping[str, str]  # file and hash → hash
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


def known(images: Iterable[Image]) -> dict[str, str]:
    """Return the hash of each picture by its file and by the hash itself."""
    return {name: one.image for one in images for name in (one.file, one.image)}


def read_csv(
    path: Path, tree: Tree, images: Mapping[str, str], annotator: str | None
) -> list[Judgement]:
    """Read a table of labels.

    Args:
        path: The table.
        tree: The criteria.
        images: Hash of each picture, by what it may be called; see ``known``.
        annotator: Who signs rows without the column ``annotator``.

    Raises:
        AnnotationError: It does not fit; every mistake with its line.
    """
    found, reading = _table(path), _Reading(tree, images)
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
    return _result(reading, path)


def silent_rows(path: Path) -> list[int]:
    """Return the lines of a table of labels that say nothing: no pole, or ``abstain``.

    Raises:
        AnnotationError: It cannot be read.
    """
    return [row.line for row in _table(path).rows if _words(row.cells["pole"]) in _SILENCE]


def _table(path: Path) -> tables.Table:
    try:
        return tables.read(_content(path), path.name, _COLUMNS)
    except UnreadableError as error:
        raise AnnotationError(f"{path}, {error}") from None


def read_label_studio(path: Path, tree: Tree, images: Mapping[str, str]) -> list[Judgement]:
    """Read Label Studio's JSON export of tasks that ``tasks`` made.

    Cancelled annotations are passed over. Who annotated is ``human `` and the e-mail or
    number that Label Studio gives.

    Raises:
        AnnotationError: It does not fit; every mistake with its task.
    """
    try:
        exported = json_values(tables.text(_content(path)))
    except UnreadableError as error:
        raise AnnotationError(
            f"{path} is {error}; export it from Label Studio as JSON"
        ) from None
    reading = _Reading(tree, images)
    for number, task in enumerate(exported if isinstance(exported, list) else [exported]):
        try:
            _read_task(task, reading)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            reading.mistakes.append(
                f"task {number + 1}: is no task of Label Studio's JSON export "
                f"({short(error)}); JSON-MIN and CSV are other formats"
            )
    return _result(reading, path)


def interface(tree: Tree) -> str:
    """Return Label Studio's labelling interface: a pair is a choice of its two poles."""
    view = Xml.Element("View")
    Xml.SubElement(view, "Image", name=_PICTURE, value="$image", zoom="true")
    _add(view, tree.criteria, "", 3)
    Xml.indent(view)
    return Xml.tostring(view, encoding="unicode") + "\n"


def tasks(images: Iterable[Image], prefix: str) -> str:
    """Return the tasks that Label Studio imports.

    Args:
        images: The pictures.
        prefix: What stands before a file to make an address that Label Studio can open, such
            as ``/data/local-files/?d=``.
    """
    made = [
        {"data": {"image": prefix + one.file, "file": one.file, "sha256": one.image}}
        for one in images
    ]
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def _content(path: Path) -> bytes:
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


def _read_task(task: Any, reading: _Reading) -> None:
    data = task["data"]
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        person = annotation.get("completed_by", "")
        person = person["email"] if isinstance(person, dict) else person
        for result in annotation["result"]:
            if result["type"] == "choices":
                reading.add(
                    f"task {task['id']}",
                    data.get("sha256") or data["file"],
                    result["from_name"].replace(".", "/"),
                    result["value"]["choices"][0],
                    annotator=f"human {person}".strip(),
                    confidence=1.0,
                )


def _result(reading: _Reading, path: Path) -> list[Judgement]:
    if reading.mistakes:
        shown = "\n".join(f"  {mistake}" for mistake in reading.mistakes[:_SHOWN])
        more = f"\n  and {len(reading.mistakes) - _SHOWN} more"
        more = more if len(reading.mistakes) > _SHOWN else ""
        raise AnnotationError(f"{path} does not fit:\n{shown}{more}")
    return reading.judgements


def _add(
    view: Xml.Element, nodes: Mapping[str, Branch | Criterion], above: str, size: int
) -> None:
    for key, node in nodes.items():
        path = f"{above}{key}"
        if isinstance(node, Branch):
            Xml.SubElement(view, "Header", value=node.name, size=str(size))
            _add(view, node.branches, f"{path}/", size + 1)
            continue
        name = path.replace("/", ".")  # a name in Label Studio has no slash
        choices = Xml.SubElement(
            view, "Choices", name=name, toName=_PICTURE, choice="single", showInline="true"
        )
        for pole, words, means in (
            ("positive", node.positive, node.positive_means),
            ("negative", node.negative, node.negative_means),
        ):
            Xml.SubElement(choices, "Choice", value=words, alias=pole, hint=means)
