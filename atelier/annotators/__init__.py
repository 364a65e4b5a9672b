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
    """The annotator of ``measured``, which reads everything from the pixels."""

    tree: Tree

    @property
    def identity(self) -> str:
        """Its name and the hash of its sources."""
        from atelier.annotators import measured

        files = sorted(Path(measured.__file__).parent.glob("*.py"))
        source = b"".join(file.read_bytes() for file in files)
        return f"{measured.NAME} {hashlib.sha256(source).hexdigest()}"

    def judge(self, image: str, pixels: Pixels) -> list[Judgement]:
        """Judge one picture by its pixels alone."""
        from atelier.annotators import measured

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
class Several:
    """Annotators who judge each picture one after the other."""

    judges: tuple[Annotator, ...]

    @property
    def identity(self) -> str:
        """Those of all of them."""
        return "\0".join(one.identity for one in self.judges)

    def judge(self, image: str, pixels: Pixels) -> list[Judgement]:
        """Return what each of them says, in their order."""
        return [said for one in self.judges for said in one.judge(image, pixels)]


@dataclass(frozen=True)
class Silent:
    """Says nothing: pictures are looked at only, and judged afterwards by an agent."""

    identity: str

    def judge(self, image: str, pixels: Pixels) -> list[Judgement]:
        """Abstain."""
        del image, pixels
        return []


def load(name: Literal["measured", "vlm"], tree: Tree) -> Annotator:
    """Return the annotator of that name; for ``vlm`` one that is silent."""
    return Silent("vlm") if name == "vlm" else Measured(tree)
