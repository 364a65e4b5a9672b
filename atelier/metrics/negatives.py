"""#A_neg: the mean number of negative attributes that an annotator finds per image.

``#A_neg = 1/N Σ_i |{c : annotator says c is negative on image i}|``, lower is better
(Meng et al., arXiv:2601.04300, by name; protocol ours). An image on which the annotator
abstained everywhere counts as 0, as does a criterion on which it abstained: the number is
comparable between painters judged by one annotator on one set of prompts, and nowhere else.
A_pos is the same for the positive poles.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Pole, Tree
from atelier.metrics import statistics
from atelier.metrics.statistics import Interval

Verdicts = Mapping[str, Pole]  # what was found on one image: criterion path → pole


@dataclass(frozen=True)
class Attributes:
    """What one annotator found on a painter's images.

    Attributes:
        negatives: #A_neg, attributes an image.
        positives: The same for A_pos.
        negatives_by_root: #A_neg of each first-level criterion; they add up to ``negatives``.
        positives_by_root: The same for A_pos.
        negative_shares: Share of images with the criterion's bad pole, by path.
        positive_shares: The same with its good pole.
    """

    negatives: Interval
    positives: Interval
    negatives_by_root: dict[str, Interval]
    positives_by_root: dict[str, Interval]
    negative_shares: dict[str, Interval]
    positive_shares: dict[str, Interval]


def verdicts(
    judgements: Iterable[Judgement], images: Sequence[str], annotator: str
) -> list[Verdicts]:
    """Return what ``annotator`` found on each image, in the order of ``images``.

    Judgement files only grow: of two judgements of one criterion the later one stands.

    Args:
        judgements: Of any annotators and any images; others are passed over.
        images: sha256 of each image; one without judgements gets an empty answer.
        annotator: Name and version, as it signs its judgements.
    """
    found: dict[str, dict[str, Pole]] = {image: {} for image in images}
    for judgement in judgements:
        if judgement.annotator == annotator and judgement.image in found:
            found[judgement.image][judgement.criterion] = judgement.pole
    return [found[image] for image in images]


def counts(found: Sequence[Verdicts], pole: Pole, within: str = "") -> NDArray[np.int64]:
    """Return how many attributes of ``pole`` each image has, ``[N]``.

    Args:
        found: From ``verdicts``.
        pole: Which pole is counted.
        within: Path of a branch or criterion that is counted alone; empty: the whole tree.
    """
    return np.array(
        [
            sum(said == pole and _inside(path, within) for path, said in verdict.items())
            for verdict in found
        ],
        dtype=np.int64,
    )


def measure(found: Sequence[Verdicts], tree: Tree, captions: Sequence[str]) -> Attributes:
    """Return #A_neg and A_pos with their intervals: whole, by root and by criterion.

    Args:
        found: From ``verdicts``; at least one image.
        tree: The criteria that were judged.
        captions: Of each image; the units of the intervals.
    """

    def means(pole: Pole, paths: Iterable[str]) -> dict[str, Interval]:
        return {path: mean(found, tree, captions, pole, path) for path in paths}

    return Attributes(
        negatives=mean(found, tree, captions, "negative"),
        positives=mean(found, tree, captions, "positive"),
        negatives_by_root=means("negative", tree.roots()),
        positives_by_root=means("positive", tree.roots()),
        negative_shares=means("negative", tree.leaves()),
        positive_shares=means("positive", tree.leaves()),
    )


def mean(
    found: Sequence[Verdicts], tree: Tree, captions: Sequence[str], pole: Pole, within: str = ""
) -> Interval:
    """Return how many attributes of ``pole`` an image has, with its interval over captions."""
    most = sum(_inside(path, within) for path in tree.leaves())
    return statistics.count(counts(found, pole, within), captions, most=most)


def _inside(path: str, within: str) -> bool:
    return not within or path == within or path.startswith(f"{within}/")
