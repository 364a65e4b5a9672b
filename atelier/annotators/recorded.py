"""Recorded judgements: read from JSONL files, alone or in addition to another annotator's."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atelier.annotators.inspection import Inspector, Limits
from atelier.annotators.protocol import Annotator, Answer, Answers, Picture, answer
from atelier.criteria.annotations import Judgement
from atelier.criteria.stored.by_image import Judgements
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError, ArtifactError
from atelier.on_disk import Lazily
from atelier.reading import short
from atelier.reporting import Report

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
        return cls(_Said(files, tree), limits)

    @property
    def name(self) -> str:
        """The name in settings; each judgement keeps the name that signed it."""
        return "recorded"

    @property
    def names(self) -> set[str]:
        """The annotators in the files."""
        if isinstance(self.said, _Said):
            return self.said.annotators
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
    """Judgements by image: file by file, each in the order of the tree."""

    def __init__(self, files: Iterable[Path], tree: Tree) -> None:
        self._present = _present_paths(tree)
        self._rank = {criterion: rank for rank, criterion in enumerate(tree.leaves())}
        self.annotators: set[str] = set()
        self._files = [self._indexed(path) for path in files]

    def _indexed(self, path: Path) -> Judgements:
        if not path.is_file():
            raise ArtifactError(
                f"{path} is absent; annotate.recorded names a JSONL file of judgements"
            )
        unknown: dict[str, int] = {}  # the first line of each

        def see(number: int, one: Judgement) -> None:
            if one.criterion in self._present:
                self.annotators.add(one.annotator)
            else:
                unknown.setdefault(one.criterion, number)

        found = Judgements(path, see)
        _refuse_unknown(unknown, path)
        return found

    def __getitem__(self, image: str) -> list[Judgement]:
        said = [one for file in self._files for one in self._latest(file.get(image, []))]
        if not said:
            raise KeyError(image)
        return said

    def _latest(self, judgements: Iterable[Judgement]) -> list[Judgement]:
        """The last word of each annotator on each criterion, by its present path."""
        latest = {}
        for one in judgements:
            criterion = self._present[one.criterion]
            latest[self._rank[criterion], one.annotator] = one.model_copy(
                update={"criterion": criterion}
            )
        return [latest[key] for key in sorted(latest)]

    def __iter__(self) -> Iterator[str]:
        return iter({image: None for file in self._files for image in file})

    def __len__(self) -> int:
        return sum(1 for _ in self)


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
