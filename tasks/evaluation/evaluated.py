"""Results of ``evaluate``, read by ``report``: judgements, scores and measures by candidate."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from atelier import atomic, images
from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement
from atelier.errors import ArtifactError
from atelier.metrics import negatives
from atelier.metrics.about import Entry
from atelier.metrics.comparison import Measured, Painted
from tasks.evaluation import pictures
from tasks.run import paths

FILE = paths.EVALUATE / "evaluated.json"


@dataclass(frozen=True)
class Evaluated:
    """What was found beside judgements and scores.

    Attributes:
        annotator: Name of the annotator that judged.
        second: Name of the independent judge, if there is one.
        extractor: Name of the network whose features FID compares; None if it is not here.
        unseen: Vendi score of as many test paintings, and how many; None if not measured.
        entries: The metrics of the profile, measured or not.
        measured: By candidate.
        made_by: Versions and machine: (name, value).
    """

    annotator: str
    second: str | None
    extractor: str | None
    unseen: tuple[float, int] | None
    entries: Mapping[str, Entry]
    measured: Mapping[str, Measured]
    made_by: Mapping[str, str]

    def painted(self, candidate: str) -> Painted:
        """Return a candidate's pictures, with what both judges said of them."""
        hashes = [images.sha256(file) for file in pictures.files(candidate)]
        said = judgements(candidate)
        return Painted(
            images=pictures.painted(candidate),
            found=negatives.verdicts(said, hashes, self.annotator),
            second=None
            if self.second is None
            else negatives.verdicts(said, hashes, self.second),
        )


def write(found: Evaluated) -> None:
    """Write what was found.

    Raises:
        DiskError: It cannot be written.
    """
    atomic.write(FILE, json.dumps(dataclasses.asdict(found), indent=1) + "\n")


def read(folder: Path = paths.EVALUATE) -> Evaluated:
    """Return what was found.

    Raises:
        ArtifactError: Nothing was evaluated yet.
    """
    file = folder / FILE.name
    if not file.is_file():
        raise ArtifactError(f"{file} is absent; run `dvc repro evaluate`")
    found: Evaluated = TypeAdapter(Evaluated).validate_python(json.loads(file.read_bytes()))
    return found


def judgements(candidate: str, folder: Path = paths.EVALUATE) -> list[Judgement]:
    """Return what both judges said of a candidate's pictures."""
    return annotations.read(folder / "judgements" / candidate / "judgements.jsonl", Judgement)


def scores(metric: str, candidate: str) -> NDArray[np.float64]:
    """Return the score of each of a candidate's pictures, ``[N]``."""
    file = paths.EVALUATE / "scores" / metric / candidate / "scores.json"
    return np.array(json.loads(file.read_bytes()), dtype=np.float64)
