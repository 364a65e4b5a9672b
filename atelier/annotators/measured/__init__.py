"""The measured annotator: image statistics of the pixels, compared with thresholds.

Each measure is one function of a ``View`` that returns one number, or NaN where the criterion
does not apply to what is seen. The criteria file says at which numbers a pole is spoken
for (``measure: {name, positive_at, negative_at}``); between the two the annotator abstains.
Nothing is read but pixels. One file holds the measures of one root of the criteria.

Measures are relative where they can be: a recession, a spot, a stroke is compared with the
picture's own range of values, so that neither saturating nor clipping colours moves them.
"""

import dataclasses
import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atelier import images, parallel
from atelier.annotators.comparing import Choice, Compared
from atelier.annotators.inspection import Inspector, Limits
from atelier.annotators.measured import brushwork, color, composition, form, light, space
from atelier.annotators.measured.view import View
from atelier.annotators.protocol import Answer, Answers, Picture, answer
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Measure, Pole, Tree
from atelier.errors import CriteriaError
from atelier.on_disk import Lazily
from atelier.reporting import Report

NAME = "measured-1"
_TIE = 0.1  # of the gap between two thresholds: a smaller difference is none
_FOLDER = Path(__file__).parent

MEASURES: dict[str, Callable[[View], float]] = {
    measure.__name__: measure
    for measure in (
        composition.mass_offset,
        composition.weight_offset,
        composition.weight_height,
        composition.mirror_likeness,
        composition.focus_offset,
        composition.division_offset,
        composition.mass_lead,
        composition.size_spread,
        composition.corner_pull,
        composition.one_way,
        composition.clutter,
        composition.rest_contrast,
        composition.focus_rivalry,
        composition.obliqueness,
        composition.group_count,
        color.hue_spread,
        color.palette_size,
        color.hue_lead,
        color.complement_force,
        color.loud_area,
        color.chroma_contrast,
        color.colorfulness,
        color.mud,
        color.gray_nuance,
        color.light_chroma,
        color.shadow_chroma,
        color.temperature_opposition,
        color.temperature_play,
        color.green_variety,
        color.sky_hue_range,
        color.color_echo,
        color.color_offset,
        light.value_range,
        light.highlight_scatter,
        light.pattern_strength,
        light.dark_linkage,
        light.value_fragmentation,
        light.darkest_area,
        light.halo,
        light.light_falloff,
        light.light_dark_separation,
        light.shadow_detail,
        brushwork.stroke_flow,
        brushwork.touch_variety,
        brushwork.stroke_order,
        brushwork.finish_focus,
        brushwork.surface_life,
        brushwork.spelled_detail,
        space.recession,
        space.color_fade,
        space.sky_vault,
        space.background_quiet,
        form.edge_sharpness,
        form.edge_firmness,
        form.edge_variety,
        form.contour_run,
        form.shape_tautness,
    )
}


@dataclass(frozen=True)
class Measured:
    """The annotator of ``measured``, which judges by the pixels alone.

    Attributes:
        tree: The criteria; those without a measure get no judgement.
        limits: Which pictures can be used.
    """

    tree: Tree
    limits: Limits

    @property
    def name(self) -> str:
        """The version of the measures."""
        return NAME

    @property
    def asks(self) -> bool:
        """It is asked nothing in words."""
        return False

    @cached_property
    def inspector(self) -> Inspector:
        """Measures each picture; another source or another tree has another fingerprint."""
        sources = b"".join(file.read_bytes() for file in sorted(_FOLDER.glob("*.py")))
        content = sources + json.dumps(self.tree.model_dump()).encode()
        identity = f"{NAME} {hashlib.sha256(content).hexdigest()}"
        return Inspector(self.limits, partial(_judgements, self.tree), identity)

    def judge_many(
        self, pictures: Sequence[Picture], report: Report, journal: Path | None = None
    ) -> Answers:
        """Judge pictures, those criteria left out that a caption rules out."""
        files = Lazily(pictures, lambda one: one.file)
        inspected = self.inspector.inspect_many(files, report, journal)

        def within(place: int) -> Answer:
            return self._within(answer(inspected[place]), pictures[place].caption)

        return Answers(Lazily(range(len(pictures)), within))

    def compare_many(
        self, pairs: Sequence[tuple[Path, Path]], criteria: Sequence[str], report: Report
    ) -> list[Compared | None]:
        """Compare what the measures say; less than a tenth of the abstention gap is a tie.

        The order of two pictures cannot matter to it.
        """
        files = list(dict.fromkeys(file for pair in pairs for file in pair))
        wanted = {p: m for p, m in measured(self.tree).items() if p in criteria}
        found: dict[Path, dict[str, float]] = {}
        work = partial(_read_values, self.tree, self.limits)
        with parallel.results(work, files, parallel.cores()) as results:
            for file, said in zip(files, results, strict=True):
                found[file] = said
                report(len(found) * len(pairs) // len(files), {})
        compared: list[Compared | None] = []
        for first, second in pairs:
            more = _more(found[first], found[second], wanted)
            compared.append(Compared(more, more))
        return compared

    def _within(self, given: Answer, caption: str | None) -> Answer:
        if caption is None:
            return given
        within = self.tree.conceivable(caption)
        kept = [one for one in given.judgements if one.criterion in within]
        return dataclasses.replace(given, judgements=kept)


def _read_values(tree: Tree, limits: Limits, file: Path) -> dict[str, float]:
    picture = images.read(file, limits.largest_pixels)
    if limits.pixels is None:
        return values(np.array(picture), tree)
    return values(images.framed(picture, limits.pixels, limits.sizes), tree)


def _more(
    first: Mapping[str, float], second: Mapping[str, float], wanted: Mapping[str, Measure]
) -> dict[str, Choice]:
    """Which of two pictures lies nearer to each good pole, where both have a number."""
    said: dict[str, Choice] = {}
    for path, measure in wanted.items():
        gap = measure.positive_at - measure.negative_at
        lead = (first[path] - second[path]) / gap
        if not math.isnan(lead):
            said[path] = "neither" if abs(lead) < _TIE else "first" if lead > 0 else "second"
    return said


def _judgements(tree: Tree, image: str, pixels: NDArray[np.uint8]) -> list[Judgement]:
    return [
        Judgement(image=image, criterion=path, pole=pole, annotator=NAME, confidence=confidence)
        for path, pole, confidence in judge(pixels, tree)
    ]


def judge(pixels: NDArray[np.uint8], tree: Tree) -> list[tuple[str, Pole, float]]:
    """Judge a picture by every criterion of ``tree`` that has a measure.

    Args:
        pixels: RGB, uint8 ``[H, W, 3]``.
        tree: The criteria.

    Returns:
        (criterion path, pole, confidence in [0.5, 1]) of each that is not abstained from.

    Raises:
        CriteriaError: A criterion names a measure that does not exist.
    """
    view = View(pixels)
    judgements: list[tuple[str, Pole, float]] = []
    for path, measure in measured(tree).items():
        value = MEASURES[measure.name](view)
        pole = measure.pole(value)
        if pole is not None:
            judgements.append((path, pole, _confidence(value, pole, measure)))
    return judgements


def values(pixels: NDArray[np.uint8], tree: Tree) -> dict[str, float]:
    """Return the number behind each judgement, by path; NaN where it does not apply.

    Raises:
        CriteriaError: A criterion names a measure that does not exist.
    """
    view = View(pixels)
    return {path: MEASURES[m.name](view) for path, m in measured(tree).items()}


def measured(tree: Tree) -> dict[str, Measure]:
    """Return the measure of each criterion that has one, by path.

    Raises:
        CriteriaError: A criterion names a measure that does not exist.
    """
    found = {path: leaf.measure for path, leaf in tree.leaves().items() if leaf.measure}
    for path, measure in found.items():
        if measure.name not in MEASURES:
            raise CriteriaError(
                f"{path}: measure.name should be one of {', '.join(sorted(MEASURES))}, "
                f"got {measure.name!r}"
            )
    return found


def explained(name: str) -> dict[str, str]:
    """Return what a measure's docstring says: ``what``, Unit, Silent, Limits, References."""
    text = inspect.getdoc(MEASURES[name]) or ""
    what, *rest = text.split("\n\n")
    said = {"what": what}
    for part in re.split(r"^(?=[A-Z][a-z]+: ?)", "\n\n".join(rest), flags=re.MULTILINE):
        key, _, meaning = part.partition(":")
        if key in _SAID:
            said[key] = meaning
    return {key: " ".join(meaning.split()) for key, meaning in said.items()}


_SAID = ("Unit", "Silent", "Limits", "References")


def _confidence(value: float, pole: Pole, measure: Measure) -> float:
    """0.5 at the pole's threshold, 0.9 one abstention gap past it, towards 1 beyond."""
    gap = abs(measure.positive_at - measure.negative_at)
    at = measure.positive_at if pole == "positive" else measure.negative_at
    return 1 - 0.5 * 5 ** (-abs(value - at) / gap)
