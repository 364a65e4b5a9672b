"""Certificate of a judge: what was found when it was examined, as a JSON file and its version.

A certificate belongs to one annotator, by the name that signs its judgements, and to one state
of the criteria. Its version is a hash of all that it says: numbers that rest on it name it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from atelier import atomic, reading
from atelier.config.fields import Params
from atelier.config.messages import explain
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError

Verdict = Literal["passes", "fails", "open"]


class Range(Params):
    """An estimate with its 95% interval."""

    estimate: float
    low: float
    high: float
    count: int  # answers behind it


class Control(Params):
    """What a control found of one criterion."""

    kept: Range | None  # share of verdicts that stayed; of `looks`: how much more a picture
    # is like itself than like another one; None where nothing was said
    opposed: float  # share of verdicts that turned to the other pole
    verdict: Verdict


class Against(Params):
    """How the judge stands to one reference."""

    both: int  # answers where both spoke
    agree: Range | None  # share of them that are alike
    kappa: Range | None  # Cohen's, of them
    sensitivity: Range | None  # share of the reference's negatives that the judge finds
    specificity: Range | None  # share of all other pictures where it names no negative
    missed: Range | None  # share of the reference's judgements on which the judge abstained
    alone: int  # answers where the judge alone spoke


class Standing(Params):
    """How the judge stands on one criterion, or on all below one root."""

    spoke: Range  # share of pictures on which it did not abstain
    controls: dict[str, Control]
    against: dict[str, Against]  # by reference
    overconfidence: Range | None  # mean confidence less the share that is right
    compared: dict[str, Range]  # of pairs of pictures: `settled`, and `right` by reference

    @property
    def failing(self) -> list[str]:
        """The controls that it fails."""
        return [name for name, one in self.controls.items() if one.verdict == "fails"]

    @property
    def verdict(self) -> Verdict:
        """It fails one control, passes all, or was not shown to do either."""
        verdicts = [one.verdict for one in self.controls.values()]
        if "fails" in verdicts:
            return "fails"
        return "passes" if verdicts and set(verdicts) == {"passes"} else "open"


class Confidence(Params):
    """Answers of about one confidence."""

    said: float  # their mean confidence
    right: Range  # share that the reference says, too


class Certificate(Params):
    """What was found of one annotator by one state of the criteria."""

    format: Literal[1]
    annotator: str
    criteria: str  # `Tree.identity`
    settings: dict[str, str]  # of the annotator, for people
    pictures: int
    unanswered: int  # of those, how many got no answer at all
    units: int  # different artworks, or pictures: the units of all intervals
    of: str  # which pictures, in words
    references: dict[str, str]  # what each is, in words; the first one corrects
    asked: dict[str, str]  # the controls that were done, and what each does
    standings: dict[str, Standing]  # by criterion
    roots: dict[str, Standing]
    calibration: list[Confidence]
    cost: dict[str, float]  # a picture: calls, tokens, cost, seconds
    made: str  # day

    @property
    def version(self) -> str:
        """A hash of all that the certificate says, apart from the day and the seconds."""
        said = self.model_dump(exclude={"made": True, "cost": True})
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def failing(self) -> dict[str, list[str]]:
        """The criteria that fail a control, and which."""
        return {path: one.failing for path, one in self.standings.items() if one.failing}


def write(certificate: Certificate, file: Path) -> None:
    """Write a certificate.

    Raises:
        DiskError: It cannot be written.
    """
    said = {"version": certificate.version, **certificate.model_dump()}
    atomic.write(file, json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def read(file: Path) -> Certificate:
    """Read a certificate.

    Raises:
        ArtifactError: It is absent, damaged, or was changed by hand.
    """
    try:
        values = reading.json_values(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, reading.UnreadableError) as error:
        raise ArtifactError(
            f"{file} is no certificate that can be read ({error}); run `atelier judge certify` "
            "again, or remove it"
        ) from None
    version = values.pop("version", None) if isinstance(values, dict) else None
    try:
        found = Certificate.model_validate(values)
    except ValidationError as error:
        raise ArtifactError(
            f"{file} is no certificate of this version of atelier:\n{explain(error)}\nRun "
            "`atelier judge certify` again, or remove it"
        ) from None
    if version != found.version:
        raise ArtifactError(
            f"{file} says version {reading.short(version)}, and its content is "
            f"{found.version!r}: it was changed by hand. Run `atelier judge certify` again, or "
            "remove it"
        )
    return found


def of(folder: Path, annotator: str, tree: Tree) -> Certificate | None:
    """Return the certificate of an annotator by these criteria; None if there is none.

    Raises:
        ArtifactError: A certificate in the folder cannot be read.
    """
    for file in sorted(folder.glob("*.json")):
        found = read(file)
        if found.annotator == annotator and found.criteria == tree.identity:
            return found
    return None


def marks(certificate: Certificate | None, paths: Sequence[str]) -> Mapping[str, str]:
    """Return a sentence for each of ``paths`` that fails a control."""
    failing = {} if certificate is None else certificate.failing
    return {
        path: f"fails the control{'s' * (len(failing[path]) > 1)} {', '.join(failing[path])}"
        for path in paths
        if path in failing
    }
