"""Agreement of two judges, by criterion: share, Cohen's κ, F1 of each pole.

The judgements of one judge are a mapping from (image, criterion) to a pole; an abstention is
absent. Agreement counts questions that both answered. Questions that only one answered are
counted separately, so that a judge cannot look good by abstaining.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Pole

Verdicts = Mapping[tuple[str, str], Pole]  # (image, criterion) → pole
_Count = Counter[tuple[Pole | None, Pole | None]]
_Z95 = 1.959963984540054  # 97.5% quantile of the standard normal
HALF = 0.5  # of an image, added to each cell before a doubt is taken from the table


@dataclass(frozen=True)
class Agreement:
    """Two judges on one criterion, as counts of images.

    Attributes:
        both_positive: Both saw the good pole.
        both_negative: Both saw the bad pole.
        positive_negative: The first saw the good pole, the second the bad one.
        negative_positive: The first saw the bad pole, the second the good one.
        first_positive: Only the first spoke, for the good pole.
        first_negative: Only the first spoke, for the bad one.
        second_positive: Only the second spoke, for the good pole.
        second_negative: Only the second spoke, for the bad one.
    """

    both_positive: int
    both_negative: int
    positive_negative: int
    negative_positive: int
    first_positive: int
    first_negative: int
    second_positive: int
    second_negative: int

    @property
    def first_alone(self) -> int:
        """Images on which only the first spoke."""
        return self.first_positive + self.first_negative

    @property
    def second_alone(self) -> int:
        """Images on which only the second spoke."""
        return self.second_positive + self.second_negative

    @property
    def both(self) -> int:
        """Images on which both spoke."""
        return self.agreeing + self.positive_negative + self.negative_positive

    @property
    def agreeing(self) -> int:
        """Images on which both said the same."""
        return self.both_positive + self.both_negative

    @property
    def share(self) -> float:
        """Fraction of the images where both spoke on which they agree; NaN if there is none."""
        return self.agreeing / self.both if self.both else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of ``share``."""
        return wilson(self.agreeing, self.both)

    @property
    def abstention(self) -> float:
        """Fraction of the images of which the first spoke that left the second silent."""
        spoken = self.both + self.first_alone
        return self.first_alone / spoken if spoken else math.nan

    @property
    def table(self) -> NDArray[np.float64]:
        """Images on which both spoke, ``[2, 2]``: rows the first judge, the good pole first."""
        return np.array(
            [
                [self.both_positive, self.positive_negative],
                [self.negative_positive, self.both_negative],
            ],
            dtype=np.float64,
        )

    @property
    def kappa(self) -> float:
        """Agreement beyond chance, 1 perfect, 0 as by chance; NaN if chance is certainty."""
        return kappa(self.table)[0]

    @property
    def kappa_interval(self) -> tuple[float, float]:
        """95% interval of ``kappa``, images taken as independent.

        ``κ' ± 1.96 s``, both of the table with half an image added to each cell: without it two
        images of two would be certain, and at 10 images the interval would hold the truth in
        two cases of three. (docs/log.md has the measurement.)

        References:
            Fleiss, Cohen & Everitt, Large sample standard errors of kappa and weighted kappa,
            Psychological Bulletin 72 (1969) 323-327. The halves: Agresti, Categorical Data
            Analysis, 3rd ed., 2013, section 3.1.
        """
        return self.kappa_within(0.0)

    def kappa_within(self, half: float, weight: float = 1.0) -> tuple[float, float]:
        """Return ``kappa_interval``, with ``half`` of its width where that is more.

        Args:
            half: From the variance between units of several images.
            weight: What an image counts, below 1 where images repeat each other.
        """
        if math.isnan(self.kappa):
            return -1.0, 1.0
        table = weight * self.table + HALF
        value, slopes = kappa(table)
        shares = table / table.sum()
        variance = (shares * slopes**2).sum() - (shares * slopes).sum() ** 2
        half = max(half, _Z95 * math.sqrt(max(variance, 0.0) / table.sum()))
        return max(-1.0, min(value - half, self.kappa)), min(1.0, max(value + half, self.kappa))

    def f1(self, pole: Pole) -> float:
        """How well the second finds what the first finds, of one pole; NaN if neither does.

        ``2 hits / (2 hits + misses + false alarms)``; silence counts, unlike in ``share``: who
        does not speak of a fault that is there has missed it. Symmetric in the two judges.
        """
        hits, others = self._found(pole)
        return 2 * hits / (2 * hits + others) if hits + others else math.nan

    def f1_interval(self, pole: Pole) -> tuple[float, float]:
        """95% interval of ``f1``.

        ``F1 = 2J / (1 + J)`` grows with Jaccard's ``J = hits / (hits + misses + alarms)``, a
        proportion, so the ends of J's Wilson interval are carried over.
        """
        hits, others = self._found(pole)
        low, high = wilson(hits, hits + others)
        return 2 * low / (1 + low), 2 * high / (1 + high)

    def _found(self, pole: Pole) -> tuple[int, int]:
        """Images on which both saw the pole, and on which one of the two did."""
        apart = self.positive_negative + self.negative_positive
        if pole == "positive":
            return self.both_positive, apart + self.first_positive + self.second_positive
        return self.both_negative, apart + self.first_negative + self.second_negative


def kappa(table: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return Cohen's kappa of two judges, and its slopes along the table's shares, ``[2, 2]``.

    ``κ = (p_o - p_e) / (1 - p_e)``, ``p_e = Σ_k r_k c_k`` from each judge's own shares ``r``
    and ``c``. The slope along the share of cell (i, j) is
    ``([i = j] (1 - p_e) - (1 - p_o) (c_i + r_j)) / (1 - p_e)²``; its variance over the images,
    divided by their number, is the squared standard error of Fleiss, Cohen and Everitt.

    Args:
        table: Images by both answers, ``[2, 2]``.

    Returns:
        NaN where chance alone would make the judges agree, or there is no image.

    References:
        Cohen, A coefficient of agreement for nominal scales, Educational and Psychological
        Measurement 20 (1960) 37-46.
    """
    if not table.sum():
        return math.nan, np.full((2, 2), math.nan)
    shares = table / table.sum()
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, chance = float(np.trace(shares)), float(rows @ columns)
    if chance >= 1:
        return math.nan, np.full((2, 2), math.nan)
    common = (1 - observed) * (columns[:, None] + rows[None, :])
    slopes = (np.eye(2) * (1 - chance) - common) / (1 - chance) ** 2
    return (observed - chance) / (1 - chance), slopes


def verdicts(judgements: Iterable[Judgement]) -> dict[tuple[str, str], Pole]:
    """Return what the judgements say; of two on one question the later one counts."""
    return {(one.image, one.criterion): one.pole for one in judgements}


def compare(first: Verdicts, second: Verdicts) -> dict[str, Agreement]:
    """Compare two judges on every criterion of which either spoke, sorted by path.

    Args:
        first: Who is taken as the measure, such as the painter or a person.
        second: Who is examined, such as an annotator.
    """
    asked = first.keys() | second.keys()
    counts = {criterion: _Count() for criterion in sorted({path for _, path in asked})}
    for key in asked:
        counts[key[1]][first.get(key), second.get(key)] += 1
    return {criterion: _agreement(count) for criterion, count in counts.items()}


def by_root(agreements: Mapping[str, Agreement]) -> dict[str, Agreement]:
    """Return the counts of ``compare`` summed over each first-level dimension.

    Their intervals take the criteria of one image as independent.
    """
    roots: dict[str, Agreement] = {}
    for criterion, one in agreements.items():
        root = criterion.partition("/")[0]
        roots[root] = _sum(roots[root], one) if root in roots else one
    return roots


def pairs(judgements: Iterable[Judgement]) -> dict[tuple[str, str], dict[str, Agreement]]:
    """Compare any two annotators of some judgements, on the images that both have judged."""
    said: dict[str, list[Judgement]] = {}
    for one in judgements:
        said.setdefault(one.annotator, []).append(one)
    return {
        (first, second): _on_shared_images(said[first], said[second])
        for first, second in itertools.combinations(sorted(said), 2)
    }


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95% score interval of a proportion; all of [0, 1] without a trial.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if trials == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _on_shared_images(
    first: Sequence[Judgement], second: Sequence[Judgement]
) -> dict[str, Agreement]:
    shared = {one.image for one in first} & {one.image for one in second}
    return compare(
        verdicts(one for one in first if one.image in shared),
        verdicts(one for one in second if one.image in shared),
    )


def _sum(one: Agreement, other: Agreement) -> Agreement:
    counts = (getattr(one, field.name) + getattr(other, field.name) for field in fields(one))
    return Agreement(*counts)


def _agreement(count: _Count) -> Agreement:
    return Agreement(
        both_positive=count["positive", "positive"],
        both_negative=count["negative", "negative"],
        positive_negative=count["positive", "negative"],
        negative_positive=count["negative", "positive"],
        first_positive=count["positive", None],
        first_negative=count["negative", None],
        second_positive=count[None, "positive"],
        second_negative=count[None, "negative"],
    )
