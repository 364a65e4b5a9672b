"""Examination of a judge: the plain question about each picture, and every control.

A judge is asked through the annotators' protocol alone, so what is examined is what judges in
``annotate`` and ``evaluate``: the same files, prompts, cache and reading of answers.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from atelier.annotators.protocol import PLAIN, Annotator, Answers, Picture, Wording
from atelier.certificates import controls
from atelier.criteria.tree import Pole, Tree
from atelier.reporting import Report

REPEATS = 2
Said = Mapping[str, tuple[Pole, float]]  # criterion → pole and confidence; of one picture


@dataclass(frozen=True)
class Shown:
    """A picture of the examination.

    Attributes:
        file: The picture.
        unit: What it may share with others that resemble it, such as its artwork.
        caption: What it shows; None if that is not known.
    """

    file: Path
    unit: str
    caption: str | None = None


@dataclass
class Observed:
    """What a judge said: of each picture, or None where it gave no answer.

    Attributes:
        plain: Asked as always.
        controls: By control, of the same pictures.
        strangers: For each picture the place of another one.
        cost: A picture's, on average.
    """

    plain: list[Said | None]
    controls: dict[str, list[list[Said | None]]]
    strangers: list[int]
    cost: dict[str, float] = field(default_factory=dict)


def controls_of(annotator: Annotator, pictures: Sequence[Shown]) -> list[str]:
    """Return the controls that can be done, in the order of ``controls.ABOUT``."""
    named = len({one.caption for one in pictures if one.caption is not None}) > 1
    return [
        name
        for name in controls.ABOUT
        if not (name in controls.OF_WORDS and not annotator.asks)
        and not (name == controls.CAPTION and not named)
    ]


def examine(
    annotator: Annotator,
    tree: Tree,
    pictures: Sequence[Shown],
    folder: Path,
    *,
    largest_pixels: int,
    seed: int,
    report: Report,
) -> Observed:
    """Ask a judge about every picture, plainly and in every control.

    Args:
        annotator: The judge.
        tree: The criteria.
        pictures: At least two.
        folder: For the changed pictures.
        largest_pixels: Larger pictures are refused.
        seed: Of the draw of strangers and of wrong captions.
        report: Called with the number of pictures judged, over all questions.

    Raises:
        AtelierError: The judge gives no answer at all.
        ImageError: A picture cannot be changed.
    """
    asking = _Asking(annotator, tree, report)
    began = time.monotonic()
    plain, answers = asking.ask([Picture(one.file) for one in pictures])
    seconds = (time.monotonic() - began) / len(pictures)
    strangers = derangement([one.unit for one in pictures], seed)
    found: dict[str, list[list[Said | None]]] = {}
    for name in controls_of(annotator, pictures):
        if name == controls.LOOKS:
            continue  # no further question: see `findings`
        repeats = REPEATS if name == controls.REPEATED else 1
        found[name] = []
        for number in range(1, repeats + 1):
            asked = _pictures(name, pictures, plain, strangers, folder, largest_pixels, number)
            found[name].append(asking.ask(asked)[0])
    # What a model answered before comes out of the cache, and its seconds say nothing.
    cost = answers.a_picture if annotator.asks else {"seconds": seconds}
    return Observed(plain, found, strangers, dict(cost))


def questions(annotator: Annotator, pictures: Sequence[Shown]) -> int:
    """Return how often each picture is judged in an examination."""
    asked = [name for name in controls_of(annotator, pictures) if name != controls.LOOKS]
    return 1 + sum(REPEATS if name == controls.REPEATED else 1 for name in asked)


def derangement(units: Sequence[str], seed: int) -> list[int]:
    """Return another place for each place, of another unit wherever there is one."""
    order = np.random.default_rng(seed).permutation(len(units)).tolist()
    strangers = [0] * len(units)
    for rank, place in enumerate(order):
        others = (order[(rank + step) % len(order)] for step in range(1, len(order)))
        nearest = order[(rank + 1) % len(order)]
        strangers[place] = next((o for o in others if units[o] != units[place]), nearest)
    return strangers


@dataclass
class _Asking:
    """Asks again and again, and counts on."""

    annotator: Annotator
    tree: Tree
    report: Report
    done: int = 0

    def ask(self, pictures: Sequence[Picture]) -> tuple[list[Said | None], Answers]:
        before = self.done
        answers = self.annotator.judge_many(
            pictures, lambda done, values: self.report(before + done, values)
        )
        self.done = before + len(pictures)
        known = self.tree.leaves()
        said: list[Said | None] = [
            None
            if one.unanswered is not None
            else {
                j.criterion: (j.pole, j.confidence)
                for j in one.judgements
                if j.criterion in known
            }
            for one in answers.each
        ]
        return said, answers


def _pictures(
    control: str,
    pictures: Sequence[Shown],
    plain: Sequence[Said | None],
    strangers: Sequence[int],
    folder: Path,
    largest_pixels: int,
    number: int,
) -> list[Picture]:
    """Return what is asked in one control."""
    if control in controls.VIEWS:
        view = controls.VIEWS[control]
        targets = [folder / control / f"{place:05}.png" for place in range(len(pictures))]
        for one, target in zip(pictures, targets, strict=True):
            view.write(one.file, target, largest_pixels)
        return [Picture(target) for target in targets]
    asked = []
    for place, one in enumerate(pictures):
        wording, caption = PLAIN, None
        if control == controls.REPEATED:
            wording = Wording(repeat=number)
        elif control == controls.SWAPPED:
            wording = Wording(swapped=True)
        elif control == controls.BACKWARDS:
            wording = Wording(backwards=True)
        elif control == controls.TOLD:
            wording = Wording(told=_opposite(plain[place] or {}))
        elif control == controls.CAPTION:
            caption = pictures[strangers[place]].caption
            wording = dataclasses.replace(PLAIN, caption=caption)
        else:
            raise ValueError(f"{control!r} is no control")
        asked.append(Picture(one.file, caption=caption, wording=wording))
    return asked


def _opposite(said: Said) -> dict[str, Pole]:
    return {
        path: "negative" if pole == "positive" else "positive"
        for path, (pole, _) in said.items()
    }
