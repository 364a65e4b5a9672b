"""Who judges: one file each.

Those that judge at once, from a picture's pixels or its hash, answer one question,
``Annotator``. The agent of ``vlm`` waits for a server instead, so it is asked about many
pictures together.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError
from atelier.images import Pixels


class Annotator(Protocol):
    """A judge of pictures. It is sent to other processes, so it must be picklable."""

    @property
    def identity(self) -> str:
        """Name its version and what it was given; under another one it judges anew."""

    def judge(self, image: str, pixels: Pixels) -> list[Judgement]:
        """Judge one picture, in the order of the tree; abstaining is saying nothing.

        Args:
            image: sha256 of the file's bytes.
            pixels: The picture as the painter sees it, uint8 ``[H, W, 3]``.
        """


@dataclass(frozen=True)
class Measured:
    """The annotator of ``measured.py``, which reads everything from the pixels."""

    tree: Tree

    @property
    def identity(self) -> str:
        """Its name and the hash of its source."""
        from atelier.criteria.annotators import measured

        source = Path(measured.__file__).read_bytes()
        return f"{measured.NAME} {hashlib.sha256(source).hexdigest()}"

    def judge(self, image: str, pixels: Pixels) -> list[Judgement]:
        """Judge one picture by its pixels alone."""
        from atelier.criteria.annotators import measured

        return [
            Judgement(
                image=image,
                criterion=criterion,
                pole=pole,
                annotator=measured.NAME,
                confidence=confidence,
            )
            for criterion, pole, confidence in measured.judge(pixels, self.tree)
        ]


@dataclass(frozen=True)
class Silent:
    """Says nothing: pictures are looked at only, and judged afterwards by an agent."""

    identity: str

    def judge(self, image: str, pixels: Pixels) -> list[Judgement]:
        """Abstain."""
        del image, pixels
        return []


def load(
    name: Literal["measured", "recorded", "vlm"], recorded: Path | None, tree: Tree
) -> Annotator:
    """Return the annotator that ``annotate.annotator`` names; for ``vlm`` one that is silent.

    Args:
        name: Which.
        recorded: The judgements that ``recorded`` replays; None for the others.
        tree: The criteria judged by.

    Raises:
        ParamsError: A file is named for an annotator without one, or none for ``recorded``.
        ArtifactError: The recorded judgements are absent.
        AnnotationError: They do not fit the tree.
    """
    if (name == "recorded") != (recorded is not None):
        should = "a JSONL file of judgements" if name == "recorded" else "null"
        raise ParamsError(
            f"annotate.recorded should be {should} when annotate.annotator is {name!r}, "
            f"is {str(recorded) if recorded else None!r}"
        )
    if name == "vlm":
        return Silent("vlm")
    if recorded is None:
        return Measured(tree)
    from atelier.criteria.annotators.recorded import Recorded

    return Recorded.read(recorded, tree)
