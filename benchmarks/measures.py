"""How many pictures a second one core measures, at 512 pixels, beside the colour conversion.

``python -m benchmarks.measures``: the pairs of ``params/criteria/painting.yaml`` on 40 pictures
drawn from a seed. The conversion to Lab, which every measure of colour needs, is the floor; the
ratio to it does not depend on the machine's load as the absolute figure does.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from scipy import ndimage
from skimage.color import rgb2lab

from atelier.annotators import measured
from atelier.criteria.tree import parse
from atelier.images import Pixels

TREE = Path(__file__).parents[1] / "params" / "criteria" / "painting.yaml"
_PICTURES = 40
_SIDE = 512
_ROUNDS = 5
Picture = TypeVar("Picture")


def pictures(count: int = _PICTURES, *, side: int = _SIDE) -> list[Pixels]:
    """Return soft coloured masses with grain, as busy as a painting."""
    source = np.random.default_rng(0)
    made = []
    for _ in range(count):
        masses = source.standard_normal((side, side, 3))
        masses = sum(
            ndimage.gaussian_filter(masses, (s, s, 0)) * s * 30 for s in (0.7, 3.0, 24.0)
        )
        made.append(np.clip(120 + masses, 0, 255).astype(np.uint8))
    return made


def seconds(work: Callable[[Picture], object], made: Sequence[Picture]) -> float:
    """Return the median CPU seconds of ``work`` on one picture."""
    taken = []
    for _ in range(_ROUNDS):
        for picture in made:
            started = time.process_time()
            work(picture)
            taken.append(time.process_time() - started)
    return statistics.median(taken)


def main() -> None:
    """Print the two times and their ratio."""
    tree, made = parse(TREE), pictures()
    count = len(measured.measured(tree))
    judging = seconds(lambda picture: measured.judge(picture, tree), made)
    converting = seconds(lambda picture: rgb2lab(picture[::4, ::4] / 255.0), made)
    Console().print(
        f"{count} measures of {_SIDE} x {_SIDE} pixels: {1e3 * judging:.1f} ms, "
        f"{1 / judging:.0f} images/s on one core, {judging / converting:.1f} times one "
        f"conversion of 128 x 128 pixels to Lab ({1e3 * converting:.2f} ms)",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    main()
