"""Recorded judgements: read from JSONL files, alone or in addition to another annotator's."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atelier.annotators.inspection import Inspector, Lazily, Limits
from atelier.annotators.protocol import Annotator, Answer, Answers, Picture, answer
from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Pole, Tree
from atelier.errors import AnnotationError, ArtifactError
from atelier.reading import short
from atelier.reporting import Report

_Row = tuple[str, Pole, str, float]  # criterion, pole, annotator, confidence
_SHOWN = 20  # unknown criteria that one message lists


@dataclass(frozen=True)
class Recorded:
    """The annotator of ``recorded``: what files say of the pictures that they name.

    Attributes:
        said: Judgements by image: file by file, each in the order of the tree.
        limits: Which pictures can be used.
    """

    said: Mapping[str, list[Judgement]]
    limits: Limits

    @classmethod
    def read(cls, files: Iterable[Path], tree: Tree, limits: Limits) -> "Recorded":
        """Read JSONL files of judgements; in a file a later line replaces an earlier one.

        Former paths of renamed criteria are taken for the present ones.

        Raises:
            ArtifactError: A file is absent.
            AnnotationError: A line does not fit, or names criteria that the tree lacks.
        """
        said = _Said()
        for file in files:
            _read(file, tree, said)
        return cls(said, limits)

    @property
    def name(self) -> str:
        """The name in settings; each judgement keeps the name that signed it."""
        return "recorded"

    @property
    def names(self) -> set[str]:
        """The annotators in the files."""
        if isinstance(self.said, _Said):
            return self.said.annotators()
        return {one.annotator for judgements in self.said.values() for one in judgements}

    @property
    def asks(self) -> bool:
        """What was recorded cannot be asked again."""
        return False

    @property
    def inspector(self) -> Inspector:
        """Opens and checks each picture."""
        return Inspector(self.limits)

    def judge_many(
        self, pictures: Sequence[Picture], report: Report, journal: Path | None = None
    ) -> Answers:
        """Look each picture up; one that no file names has no judgement."""
        files = Lazily(pictures, lambda one: one.file)
        seen = self.inspector.inspect_many(files, report, journal)
        return self.added(Answers(Lazily(seen, answer)))

    def added(self, answers: Answers) -> Answers:
        """Return ``answers`` with what the files say put first, where a picture was judged."""
        return dataclasses.replace(answers, each=Lazily(answers.each, self._add))

    def _add(self, given: Answer) -> Answer:
        if given.image is None or given.unanswered is not None:
            return given
        said = self.said.get(given.image, [])
        return dataclasses.replace(given, judgements=[*said, *given.judgements])


@dataclass(frozen=True)
class WithRecorded:
    """An annotator whose judgements are combined with recorded ones."""

    annotator: Annotator
    recorded: Recorded

    @property
    def name(self) -> str:
        """That of the annotator."""
        return self.annotator.name

    @property
    def asks(self) -> bool:
        """As the annotator."""
        return self.annotator.asks

    @property
    def inspector(self) -> Inspector:
        """That of the annotator."""
        return self.annotator.inspector

    def judge_many(
        self, pictures: Sequence[Picture], report: Report, journal: Path | None = None
    ) -> Answers:
        """Let the annotator judge, and add the recorded judgements of the same pictures."""
        return self.recorded.added(self.annotator.judge_many(pictures, report, journal))


class _Said(Mapping[str, list[Judgement]]):
    """Judgements by image; in memory are their words alone, each once."""

    def __init__(self) -> None:
        self._words: dict[bytes, list[_Row]] = {}

    def add(self, image: bytes, rows: Iterable[_Row]) -> None:
        """Put rows behind those of the files before."""
        self._words.setdefault(image, []).extend(rows)

    def __getitem__(self, image: str) -> list[Judgement]:
        return [
            Judgement(
                image=image, criterion=criterion, pole=pole, annotator=by, confidence=sure
            )
            for criterion, pole, by, sure in self._words[bytes.fromhex(image)]
        ]

    def __iter__(self) -> Iterator[str]:
        return (image.hex() for image in self._words)

    def __len__(self) -> int:
        return len(self._words)

    def annotators(self) -> set[str]:
        """Return who judged."""
        return {by for rows in self._words.values() for _, _, by, _ in rows}


def _read(path: Path, tree: Tree, said: _Said) -> None:
    """Add the judgements of one file by image, in the order of the tree."""
    if not path.is_file():
        raise ArtifactError(
            f"{path} is absent; annotate.recorded names a JSONL file of judgements"
        )
    present = _present_paths(tree)
    rank = {criterion: rank for rank, criterion in enumerate(tree.leaves())}
    unknown: dict[str, int] = {}  # the first line of each
    rows: dict[bytes, list[tuple[int, _Row]]] = {}
    for number, one in enumerate(annotations.stream(path, Judgement), start=1):
        if one.criterion not in present:
            unknown.setdefault(one.criterion, number)
            continue
        criterion = present[one.criterion]
        row = (criterion, one.pole, sys.intern(one.annotator), one.confidence)
        rows.setdefault(bytes.fromhex(one.image), []).append((rank[criterion], row))
    _refuse_unknown(unknown, path)
    for image in list(rows):
        latest = {(place, row[2]): row for place, row in rows.pop(image)}
        said.add(image, [latest[key] for key in sorted(latest)])


def _present_paths(tree: Tree) -> dict[str, str]:
    """The path of each criterion, by its path and by each of its former ones."""
    return {
        name: path for path, leaf in tree.leaves().items() for name in (path, *leaf.aliases)
    }


def _refuse_unknown(unknown: Mapping[str, int], path: Path) -> None:
    if unknown:
        listed = "\n".join(
            f"  {short(name)}, first in line {n}" for name, n in list(unknown.items())[:_SHOWN]
        )
        more = f"\n  and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise AnnotationError(
            f"{path} judges by criteria that the tree does not have:\n{listed}{more}\n"
            "Where one was renamed, list the former path under `aliases` of the present one."
        )
