"""Judgements given before, by anyone, replayed from a file for the images that they name."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Pole, Tree
from atelier.errors import AnnotationError, ArtifactError
from atelier.images import Pixels
from atelier.reading import short

_SHOWN = 20  # unknown criteria that one message lists
# Criterion, annotator, pole, confidence: small, for they are sent to every process.
_Said = tuple[str, str, Pole, float]


@dataclass(frozen=True)
class Recorded:
    """An annotator that has already answered.

    Attributes:
        said: Judgements by image, in the order of the tree.
        identity: Hash of the file and of what the tree calls its criteria.
    """

    said: dict[str, list[_Said]]
    identity: str

    @classmethod
    def read(cls, path: Path, tree: Tree) -> "Recorded":
        """Read a JSONL file of judgements; a later line replaces an earlier one on the same.

        Former paths of renamed criteria are taken for the present ones.

        Raises:
            ArtifactError: The file is absent.
            AnnotationError: A line does not fit, or names criteria that the tree lacks.
        """
        if not path.is_file():
            raise ArtifactError(
                f"{path} is absent; annotate.recorded names a JSONL file of judgements"
            )
        present = _present_paths(tree)
        judgements = annotations.read(path, Judgement)
        _refuse_unknown(judgements, present, path)
        rank = {criterion: rank for rank, criterion in enumerate(tree.leaves())}
        latest: dict[str, dict[tuple[int, str], _Said]] = {}
        for one in judgements:
            criterion = present[one.criterion]
            said = (criterion, one.annotator, one.pole, one.confidence)
            latest.setdefault(one.image, {})[rank[criterion], one.annotator] = said
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(
            {image: [said[key] for key in sorted(said)] for image, said in latest.items()},
            f"recorded {content} {sorted(present.items())}",
        )

    @property
    def names(self) -> set[str]:
        """Who speaks in the file."""
        return {annotator for said in self.said.values() for _, annotator, _, _ in said}

    def judge(self, image: str, pixels: Pixels) -> list[Judgement]:
        """Return what was said of ``image``; nothing, if it is not in the file."""
        del pixels
        return [
            Judgement(
                image=image,
                criterion=criterion,
                pole=pole,
                annotator=annotator,
                confidence=confidence,
            )
            for criterion, annotator, pole, confidence in self.said.get(image, [])
        ]


def _present_paths(tree: Tree) -> dict[str, str]:
    """The path of each criterion, by its path and by each of its former ones."""
    return {
        name: path for path, leaf in tree.leaves().items() for name in (path, *leaf.aliases)
    }


def _refuse_unknown(
    judgements: Iterable[Judgement], present: dict[str, str], path: Path
) -> None:
    unknown: dict[str, int] = {}
    for number, one in enumerate(judgements, start=1):
        if one.criterion not in present:
            unknown.setdefault(one.criterion, number)
    if unknown:
        listed = "\n".join(
            f"  {short(name)}, first in line {n}" for name, n in list(unknown.items())[:_SHOWN]
        )
        more = f"\n  and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise AnnotationError(
            f"{path} judges by criteria that the tree does not have:\n{listed}{more}\n"
            "Where one was renamed, list the former path under `aliases` of the present one."
        )
