"""Analysis of votes: preferences by dimension and group, with intervals.

People who fail the checks are excluded from all numbers and listed. A repeated question counts
once, with its first answer.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from atelier.metrics import statistics
from atelier.metrics.statistics import LEVEL, Interval
from survey.method import preferences
from survey.method.design import Picture, Question
from survey.method.preferences import SignTest

Choice = Literal["left", "right", "same"]
EVERYBODY = "all"  # all groups together
OVERALL = "overall"  # all dimensions together
_KAPPA_RESAMPLES = 1000  # each is a table of its own: enough for two decimals


@dataclass(frozen=True)
class Answer:
    """One person's answer to one question of the sheet."""

    rater: str
    group: str
    number: int  # of the question on the sheet, from 0
    question: Question
    choice: Choice

    @property
    def preferred(self) -> str | None:
        """Return the preferred painter, None for a tie."""
        sides = {"left": self.question.left, "right": self.question.right}
        return sides[self.choice].painter if self.choice in sides else None

    @property
    def right(self) -> bool:
        """Return whether a check was answered correctly."""
        ruined = "left" if self.question.left.ruined else "right"
        return self.choice not in {ruined, "same"}


@dataclass(frozen=True)
class Trust:
    """Reliability of one person's answers.

    Attributes:
        rater: Who.
        group: Of which group.
        answers: Questions answered, checks and repeats among them.
        checks: Checks answered.
        passed: Checks answered rightly.
        repeats: Questions answered twice.
        consistent: Of those, answered the same way again, sides swapped.
        counted: Whether the answers count.
    """

    rater: str
    group: str
    answers: int
    checks: int
    passed: int
    repeats: int
    consistent: int
    counted: bool


@dataclass(frozen=True)
class Comparison:
    """Comparison of two models along one dimension, by one group.

    Attributes:
        first: A painter.
        second: Another.
        wins: Votes for the first.
        losses: Votes for the second.
        ties: Votes for neither.
        rate: ``wins / (wins + losses)`` with Wilson's interval: takes votes as independent.
        share: Mean over pairs of the first's share of a pair's votes, a tie half a vote, with a
            bootstrap interval over pairs: other prompts might have given other answers.
        sign: Sign test over pairs, each leaning as most of its votes.
    """

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    rate: Interval | None
    share: Interval
    sign: SignTest


@dataclass(frozen=True)
class Finding:
    """All results of one dimension and one group.

    Attributes:
        dimension: A root of the criteria, or ``OVERALL``.
        group: A group, or ``EVERYBODY``.
        raters: People whose answers are in it.
        votes: Their answers, checks and repeats not among them.
        comparisons: Every two painters.
        scores: Bradley-Terry score by painter.
        kappa: Fleiss' kappa of the people who judged one pair; None where undefined.
        kappa_low: Lower end of its bootstrap interval over pairs.
        kappa_high: Upper end.
    """

    dimension: str
    group: str
    raters: int
    votes: int
    comparisons: Sequence[Comparison]
    scores: Mapping[str, Interval]
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None


@dataclass(frozen=True)
class Study:
    """What was found."""

    trust: Sequence[Trust]
    findings: Sequence[Finding]

    def finding(self, dimension: str, group: str) -> Finding:
        """Return the finding on one dimension by one group."""
        return next(
            one for one in self.findings if (one.dimension, one.group) == (dimension, group)
        )


def analyse(
    answers: Sequence[Answer],
    painters: Sequence[str],
    dimensions: Sequence[str],
    groups: Sequence[str],
    *,
    checks_passed: float,
    resamples: int,
    seed: int,
) -> Study:
    """Analyze every dimension, for every group and for all groups together.

    A dimension that a group has not judged yet gets no finding.

    Args:
        answers: All of them, of unfinished sheets too.
        painters: Compared models, in the order of the report.
        dimensions: In the order of the report.
        groups: In the order of the report.
        checks_passed: Share of the checks that a person must answer correctly to be counted; a
            person without a check so far is counted.
        resamples: Of every bootstrap.
        seed: Of every bootstrap.
    """
    trusted = trust(answers, checks_passed)
    counted = {one.rater for one in trusted if one.counted}
    votes = [one for one in _votes(answers) if one.rater in counted]
    scopes = [*groups, EVERYBODY] if len(groups) > 1 else list(groups)
    findings = []
    for group in scopes:
        for dimension in [*dimensions, OVERALL]:
            chosen = [
                vote
                for vote in votes
                if group in {vote.group, EVERYBODY}
                and dimension in {vote.question.dimension, OVERALL}
            ]
            if chosen:
                findings.append(_finding(dimension, group, chosen, painters, resamples, seed))
    return Study(trusted, findings)


def trust(answers: Iterable[Answer], checks_passed: float) -> list[Trust]:
    """Return the reliability of each person, in the order of their names."""
    sheets: dict[str, list[Answer]] = {}
    for answer in answers:
        sheets.setdefault(answer.rater, []).append(answer)
    return [_trust(sheets[rater], checks_passed) for rater in sorted(sheets)]


def _trust(own: Sequence[Answer], checks_passed: float) -> Trust:
    ordered = sorted(own, key=lambda answer: answer.number)
    checks = [answer for answer in ordered if answer.question.check]
    first: dict[Question, Answer] = {}
    twice = []
    for answer in ordered:
        if answer.question.swapped in first and not answer.question.check:
            twice.append((first[answer.question.swapped], answer))
        first.setdefault(answer.question, answer)
    passed = sum(answer.right for answer in checks)
    return Trust(
        rater=ordered[0].rater,
        group=ordered[0].group,
        answers=len(ordered),
        checks=len(checks),
        passed=passed,
        repeats=len(twice),
        consistent=sum(before.preferred == after.preferred for before, after in twice),
        counted=passed >= checks_passed * len(checks),
    )


def _votes(answers: Iterable[Answer]) -> list[Answer]:
    """Return the answers that count: no checks, only the first one to a repeated question."""
    votes: dict[tuple[str, frozenset[Picture], str], Answer] = {}
    for answer in sorted(answers, key=lambda one: (one.rater, one.number)):
        question = answer.question
        if not question.check:
            both = frozenset((question.left, question.right))
            votes.setdefault((answer.rater, both, question.dimension), answer)
    return list(votes.values())


def _finding(
    dimension: str,
    group: str,
    votes: Sequence[Answer],
    painters: Sequence[str],
    resamples: int,
    seed: int,
) -> Finding:
    comparisons = []
    wins = np.zeros((len(painters), len(painters)))
    for (i, first), (j, second) in combinations(enumerate(painters), 2):
        met = [vote for vote in votes if _painters(vote) == {first, second}]
        if met:
            one = _comparison(first, second, met, resamples, seed)
            comparisons.append(one)
            wins[i, j], wins[j, i] = one.wins + one.ties / 2, one.losses + one.ties / 2
    kappa, low, high = _kappa(votes, painters, resamples, seed)
    return Finding(
        dimension=dimension,
        group=group,
        raters=len({vote.rater for vote in votes}),
        votes=len(votes),
        comparisons=comparisons,
        scores=_scores(wins, painters),
        kappa=kappa,
        kappa_low=low,
        kappa_high=high,
    )


def _painters(vote: Answer) -> set[str]:
    return {vote.question.left.painter, vote.question.right.painter}


def _comparison(
    first: str, second: str, votes: Sequence[Answer], resamples: int, seed: int
) -> Comparison:
    said = Counter(vote.preferred for vote in votes)
    decided = said[first] + said[second]
    worth = {first: 1.0, None: 0.5, second: 0.0}
    pairs: dict[int, list[float]] = {}
    for vote in votes:
        pairs.setdefault(vote.question.left.prompt, []).append(worth[vote.preferred])
    shares = [sum(pair) / len(pair) for _, pair in sorted(pairs.items())]
    return Comparison(
        first=first,
        second=second,
        wins=said[first],
        losses=said[second],
        ties=said[None],
        rate=statistics.share(said[first], decided) if decided else None,
        share=statistics.mean(shares, resamples=resamples, seed=seed),
        sign=preferences.sign_test([share - 0.5 for share in shares]),
    )


def _scores(wins: NDArray[np.float64], painters: Sequence[str]) -> dict[str, Interval]:
    """Scores of all painters; of none while some of them were not compared yet."""
    try:
        return dict(zip(painters, preferences.bradley_terry(wins), strict=True))
    except ValueError:
        return {}


def _kappa(
    votes: Sequence[Answer], painters: Sequence[str], resamples: int, seed: int
) -> tuple[float | None, float | None, float | None]:
    """Kappa over (pair, dimension) items, with an interval by resampling the pairs."""
    answers: list[str | None] = [*painters, None]
    items: dict[tuple[frozenset[Picture], str], list[int]] = {}
    for vote in votes:
        both = frozenset((vote.question.left, vote.question.right))
        row = items.setdefault((both, vote.question.dimension), [0] * len(answers))
        row[answers.index(vote.preferred)] += 1
    pairs: dict[frozenset[Picture], list[list[int]]] = {}
    for (both, _), row in items.items():
        pairs.setdefault(both, []).append(row)
    whole = preferences.fleiss_kappa(list(items.values()))
    if whole is None:
        return None, None, None
    low, high = _resampled(
        [np.array(rows) for rows in pairs.values()],
        preferences.fleiss_kappa,
        min(resamples, _KAPPA_RESAMPLES),
        seed,
    )
    return whole, low, high


def _resampled(
    clusters: Sequence[NDArray[np.int64]],
    estimate: Callable[[NDArray[np.int64]], float | None],
    resamples: int,
    seed: int,
) -> tuple[float | None, float | None]:
    """Ends of the bootstrap percentile interval of ``estimate`` over whole clusters."""
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = random.integers(len(clusters), size=len(clusters))
        value = estimate(np.concatenate([clusters[i] for i in chosen]))
        if value is not None:
            drawn.append(value)
    if not drawn:
        return None, None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
