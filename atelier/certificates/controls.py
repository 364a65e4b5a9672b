"""Controls of a judge: the same question in another form, with the same answer to be given.

Three of them change the picture in a way that no criterion is about, the others the words. Each
is done on the same pictures as the plain question, and what counts is the share of the plain
verdicts that stay. ``looks`` is the exception: there another picture is shown, and the answers
should *not* stay.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from atelier import atomic, images

KEPT = 0.8  # share of verdicts that has to stay
APART = 0.1  # by which a picture should be more like itself than like another
_QUALITY = 75  # of JPEG
_SMALLER = 0.75  # side of a resized picture, before it is brought back


def _mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _recompressed(picture: Image.Image) -> Image.Image:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_QUALITY)
    return Image.open(content).convert("RGB")


def _resized(picture: Image.Image) -> Image.Image:
    small = tuple(max(1, round(side * _SMALLER)) for side in picture.size)
    down = picture.resize((small[0], small[1]), Image.Resampling.LANCZOS)
    return down.resize(picture.size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class View:
    """A picture changed in what no criterion is about."""

    about: str
    change: Callable[[Image.Image], Image.Image]

    def write(self, source: Path, target: Path, largest_pixels: int) -> None:
        """Write the changed picture as a PNG.

        Raises:
            ImageError: The picture cannot be used.
            DiskError: It cannot be written.
        """
        picture = images.read(source, largest_pixels)
        atomic.write(target, images.png(np.asarray(self.change(picture))))


VIEWS = {
    "mirrored": View("the picture, left and right exchanged", _mirrored),
    "recompressed": View(f"the picture as a JPEG of quality {_QUALITY}", _recompressed),
    "resized": View(
        f"the picture at {_SMALLER:.0%} of its side, and brought back to its size", _resized
    ),
}
REPEATED = "repeated"
LOOKS = "looks"
CAPTION = "wrong caption"
SWAPPED = "poles swapped"
BACKWARDS = "order reversed"
TOLD = "told the opposite"
ABOUT = {
    REPEATED: "the same question again",
    **{name: view.about for name, view in VIEWS.items()},
    LOOKS: "another picture in its place: a judge that looks says something else",
    CAPTION: "the picture with the caption of another one",
    SWAPPED: "the good pole is called negative in the question, the bad one positive",
    BACKWARDS: "criteria and poles stand in the reverse order",
    TOLD: "the question adds that somebody else has found the opposite pole",
}
OF_WORDS = (SWAPPED, BACKWARDS, TOLD)  # of judges that are asked in words
