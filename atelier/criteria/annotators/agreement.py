"""How far two judges agree, criterion by criterion.

What one judge said is a mapping from (image, criterion) to a pole; abstaining is absence.
Agreement is counted where both speak; where only one does is counted beside it, so that a
judge cannot look good by keeping silent.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Pole

Verdicts = Mapping[tuple[str, str], Pole]  # (image, criterion) → pole
_Count = Counter[tuple[Pole | None, Pole | None]]
_Z95 = 1.959963984540054  # 97.5% quantile of the standard normal


@dataclass(frozen=True)
class Agreement:
    """Two judges on one criterion, as counts of images.

    Attributes:
        both_positive: Both saw the good pole.
        both_negative: Both saw the bad pole.
        positive_negative: The first saw the good pole, the second the bad one.
        negative_positive: The first saw the bad pole, the second the good one.
        first_alone: Only the first spoke.
        second_alone: Only the second spoke.
    """

    both_positive: int
    both_negative: int
    positive_negative: int
    negative_positive: int
    first_alone: int
    second_alone: int

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
    def kappa(self) -> float:
        """Agreement beyond chance, 1 perfect, 0 as by chance; NaN if chance is certainty.

        ``(p_o - p_e) / (1 - p_e)``, ``p_e`` from each judge's own share of good poles.

        References:
            Cohen, A coefficient of agreement for nominal scales, 1960.
        """
        if not self.both:
            return math.nan
        first = (self.both_positive + self.positive_negative) / self.both
        second = (self.both_positive + self.negative_positive) / self.both
        chance = first * second + (1 - first) * (1 - second)
        return (self.share - chance) / (1 - chance) if chance < 1 else math.nan


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


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95% score interval of a proportion; all of [0, 1] without a trial.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    half = _Z95 * spread / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def _agreement(count: _Count) -> Agreement:
    return Agreement(
        both_positive=count["positive", "positive"],
        both_negative=count["negative", "negative"],
        positive_negative=count["positive", "negative"],
        negative_positive=count["negative", "positive"],
        first_alone=count["positive", None] + count["negative", None],
        second_alone=count[None, "positive"] + count[None, "negative"],
    )
