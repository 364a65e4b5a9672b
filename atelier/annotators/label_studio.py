"""Label Studio: the labeling interface of a tree, its tasks, and its export of the answers.

``interface`` and ``tasks`` are what a project in Label Studio is made of; ``read`` reads its
JSON export. Each person signs their own judgements.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from atelier.annotators import human
from atelier.annotators.human import Labels, Reading
from atelier.criteria import tables
from atelier.criteria.annotations import Image
from atelier.criteria.tree import Branch, Criterion, Tree
from atelier.errors import AnnotationError
from atelier.reading import UnreadableError, json_values, short

_PICTURE = "picture"  # name of the image in the interface


def interface(tree: Tree) -> str:
    """Return Label Studio's labeling interface: a pair is a choice of its two poles."""
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


def read(path: Path, tree: Tree, images: Mapping[str, str]) -> Labels:
    """Read Label Studio's JSON export of tasks that ``tasks`` made.

    Who annotated is ``human `` and the e-mail or the number that Label Studio gives. A choice
    that is left empty is silence. Drafts, skipped annotations and predictions are counted.

    Raises:
        AnnotationError: It does not fit, every mistake with its task; or it holds no judgement.
    """
    try:
        exported = json_values(tables.text(human.content(path)))
    except UnreadableError as error:
        raise AnnotationError(
            f"{path} is {error}; export it from Label Studio as JSON"
        ) from None
    found = _Export(Reading(tree, images))
    for number, task in enumerate(exported if isinstance(exported, list) else [exported]):
        found.add(number + 1, task)
    return found.reading.result(path, found.passed_over())


@dataclass
class _Export:
    """An export while it is read."""

    reading: Reading
    others: Counter[str] = field(default_factory=Counter)  # what is no judgement, by its kind
    poles: dict[tuple[str, str, str], tuple[str, str]] = field(default_factory=dict)

    def passed_over(self) -> list[str]:
        """Return one sentence on what is no judgement, if there is any."""
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(self.others.items()))
        cure = "; submit the drafts in Label Studio and export again"
        cure = cure if self.others["drafts"] else ""
        return [f"{listed} passed over{cure}"] if listed else []

    def add(self, number: int, task: Any) -> None:
        """Take the annotations of one task."""
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict) or not isinstance(task.get("annotations"), list):
            self.reading.mistakes.append(
                f"task {number}: is no task of Label Studio's JSON export, which has data and "
                "annotations; JSON-MIN and CSV are other formats"
            )
            return
        for kind in ("drafts", "predictions"):
            found = task.get(kind)
            if isinstance(found, list) and found:
                self.others[kind] += len(found)
        if not task["annotations"]:
            self.others["tasks without an annotation"] += 1
        number = task["id"] if isinstance(task.get("id"), int) else number
        for annotation in task["annotations"]:
            self._annotation(f"task {number}", data, annotation)

    def _annotation(self, where: str, data: Mapping[str, Any], annotation: Any) -> None:
        results = annotation.get("result") if isinstance(annotation, dict) else None
        if not isinstance(results, list):
            self.reading.mistakes.append(f"{where}: an annotation has no list 'result'")
            return
        if annotation.get("was_cancelled"):
            self.others["skipped annotations"] += 1
            return
        choices = [one for one in (self._choice(where, result) for result in results) if one]
        picture, person = _picture(data), _person(annotation.get("completed_by"))
        if choices and picture is None:
            self.reading.mistakes.append(
                f"{where}: data.file is absent, so that the picture is not known (data.image "
                f"is {short(data.get('image'))}); let Label Studio import the tasks of "
                "`atelier labels export` instead of uploading pictures"
            )
        elif choices and person is None:
            self.reading.mistakes.append(
                f"{where}: completed_by of annotation {short(annotation.get('id'))} is "
                f"{short(annotation.get('completed_by'))}, which names no person; was the "
                "account deleted? Write an e-mail or a number there, or remove the annotation"
            )
        else:
            for criterion, pole in choices:
                self._label(where, str(picture), criterion, pole, f"human {person}")

    def _choice(self, where: str, result: Any) -> tuple[str, str] | None:
        """Return criterion and pole of a result; None if it is none, or is left empty."""
        if not isinstance(result, dict) or result.get("type") != "choices":
            self.others["answers that are no choice"] += 1
            return None
        name, value = result.get("from_name"), result.get("value")
        choices = value.get("choices", []) if isinstance(value, dict) else None
        if not isinstance(name, str) or not isinstance(choices, list):
            self.reading.mistakes.append(f"{where}: a choice has no from_name or no value")
            return None
        if not choices:
            self.others["choices left empty"] += 1
            return None
        if len(choices) > 1 or not isinstance(choices[0], str):
            self.reading.mistakes.append(
                f"{where}: {short(name)} has the choices {short(choices)}; one pole is right"
            )
            return None
        return name.replace(".", "/"), choices[0]

    def _label(self, where: str, picture: str, criterion: str, pole: str, by: str) -> None:
        """Take a label; a person who says two things of one criterion is a mistake."""
        count = len(self.reading.judgements)
        self.reading.add(where, picture, criterion, pole, annotator=by, confidence=1.0)
        for one in self.reading.judgements[count:]:
            key = (one.image, one.criterion, one.annotator)
            first, at = self.poles.setdefault(key, (one.pole, where))
            if first != one.pole:
                self.reading.mistakes.append(
                    f"{where}: {by} says {one.pole} of {one.criterion}, and {first} in {at}; "
                    "remove one of the two annotations"
                )


def _picture(data: Mapping[str, Any]) -> str | None:
    """The picture of a task: its hash or its file."""
    names = (data.get("sha256"), data.get("file"))
    return next((name for name in names if isinstance(name, str) and name.strip()), None)


def _person(completed_by: Any) -> str | None:
    """The e-mail or the number of a person; None if neither is there."""
    if isinstance(completed_by, dict):
        email, number = completed_by.get("email"), completed_by.get("id")
        return _person(email) or _person(number)
    if isinstance(completed_by, str):
        return " ".join(completed_by.split()) or None
    if isinstance(completed_by, int) and not isinstance(completed_by, bool):
        return str(completed_by)
    return None


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
