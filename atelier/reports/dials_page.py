"""The page of dials: what each moves and what it disturbs, and pictures as each is turned."""

import base64
import importlib.resources
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
import numpy as np
from PIL import Image

from atelier.images import Pixels
from atelier.metrics.statistics import Interval

_SIDE = 160  # pixels of a picture


@dataclass(frozen=True)
class Turned:
    """One dial, turned by a share.

    Attributes:
        root: Whose dial it is.
        share: 1 is a whole turn towards the good poles.
        moved: Change of A_pos - A_neg in each root, attributes an image.
    """

    root: str
    share: float
    moved: Mapping[str, Interval]


@dataclass(frozen=True)
class Measured:
    """What one judge found of all dials."""

    judge: str
    turned: Sequence[Turned]

    def own(self) -> float:
        """Return the mean absolute change of a dial's own root, attributes an image."""
        return float(np.mean([abs(one.moved[one.root].estimate) for one in self.turned]))

    def others(self) -> float:
        """Return the mean absolute change of another root; 0 where there is none."""
        found = [
            abs(moved.estimate)
            for one in self.turned
            for root, moved in one.moved.items()
            if root != one.root
        ]
        return float(np.mean(found)) if found else 0.0


def render(
    results: Sequence[Measured],
    shown: Mapping[str, Mapping[float, Sequence[Pixels]]],
    prompts: Sequence[str],
    names: Mapping[str, str],
    *,
    model: str,
    captions: int,
    steps: int,
    share: float,
) -> str:
    """Return the page as HTML that loads nothing; what comes from outside is escaped.

    Args:
        results: By judge, the annotator first.
        shown: Pictures by root and share, one for each of ``prompts``.
        prompts: Captions of the pictures.
        names: Of the roots, in words.
        model: What the dials are added to.
        captions: Different captions behind the numbers.
        steps: Of the training of each dial.
        share: Of a whole turn that was measured.
    """
    source = importlib.resources.files("atelier.reports") / "dials_page.html.j2"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = lambda value: f"{value:+.2f}".replace("-", "−")
    environment.filters["share"] = lambda value: f"{value:+g}".replace("-", "−")
    pictures = {
        root: {turned: [_uri(one) for one in row] for turned, row in by_share.items()}
        for root, by_share in shown.items()
    }
    return environment.from_string(source.read_text(encoding="utf-8")).render(
        results=results,
        pictures=pictures,
        prompts=prompts,
        names=names,
        model=model,
        captions=captions,
        steps=steps,
        share=share,
    )


def _uri(picture: Pixels) -> str:
    image, file = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    image.save(file, "WEBP", quality=84, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
