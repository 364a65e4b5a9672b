"""Analysis of votes: preferences by dimension and group, with intervals.

People who fail the checks are excluded from all numbers and listed. A repeated question counts
once, with its first answer.

Answers about one caption resemble each other, and so do those of one person. Every interval of
a share or a score is therefore about other captions and other people together
(``statistics.squared_margin``): no answer counts as independent.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from atelier.metrics import statistics
from atelier.metrics.statistics import Interval
from survey.method import preferences
from survey.method.design import Picture, Question
from survey.method.preferences import Ballots, SignTest

Choice = Literal["left", "right", "same"]
EVERYBODY = "all"  # all groups together
OVERALL = "overall"  # all dimensions together


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
        rate: ``wins / (wins + losses)`` with its interval over captions and people.
        share: Mean over pairs of the first's share of a pair's votes, a tie half a vote, with
            its interval over captions and people.
        sign: Sign test over captions, each leaning as most of its votes.
        kappa: Fleiss' kappa of the people who judged one pair, chance by dimension, with its
            interval over captions; None where undefined.
    """

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    rate: Interval | None
    share: Interval
    sign: SignTest
    kappa: Interval | None


@dataclass(frozen=True)
class Finding:
    """All results of one dimension and one group.

    Attributes:
        dimension: A root of the criteria, or ``OVERALL``.
        group: A group, or ``EVERYBODY``.
        raters: People whose answers are in it.
        votes: Their answers, checks and repeats not among them.
        comparisons: Every two painters.
        scores: Bradley-Terry score by painter, with its interval over captions and people.
    """

    dimension: str
    group: str
    raters: int
    votes: int
    comparisons: Sequence[Comparison]
    scores: Mapping[str, Interval]


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
    captions: Sequence[str],
    *,
    checks_passed: float,
) -> Study:
    """Analyze every dimension, for every group and for all groups together.

    A dimension that a group has not judged yet gets no finding.

    Args:
        answers: All of them, of unfinished sheets too.
        painters: Compared models, in the order of the report.
        dimensions: In the order of the report.
        groups: In the order of the report.
        captions: Of each prompt, by its place.
        checks_passed: Share of the checks that a person must answer correctly to be counted; a
            person without a check so far is counted.
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
                findings.append(_finding(dimension, group, chosen, painters, captions))
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
    captions: Sequence[str],
) -> Finding:
    comparisons = []
    for first, second in combinations(painters, 2):
        met = [vote for vote in votes if _painters(vote) == {first, second}]
        if met:
            comparisons.append(_comparison(first, second, met, captions))
    return Finding(
        dimension=dimension,
        group=group,
        raters=len({vote.rater for vote in votes}),
        votes=len(votes),
        comparisons=comparisons,
        scores=_scores(votes, painters, captions),
    )


def _painters(vote: Answer) -> set[str]:
    return {vote.question.left.painter, vote.question.right.painter}


def _comparison(
    first: str, second: str, votes: Sequence[Answer], captions: Sequence[str]
) -> Comparison:
    said = Counter(vote.preferred for vote in votes)
    decided = [vote for vote in votes if vote.preferred is not None]
    return Comparison(
        first=first,
        second=second,
        wins=said[first],
        losses=said[second],
        ties=said[None],
        rate=statistics.share(
            [vote.preferred == first for vote in decided],
            _captions(decided, captions),
            [vote.rater for vote in decided],
        )
        if decided
        else None,
        share=_share(first, votes, captions),
        sign=_sign(first, votes, captions),
        kappa=_kappa(first, second, votes, captions),
    )


def _captions(votes: Iterable[Answer], captions: Sequence[str]) -> list[str]:
    return [captions[vote.question.left.prompt] for vote in votes]


def _worth(vote: Answer, first: str) -> float:
    """1 for the first painter, 0 for the other, ½ for neither."""
    return 0.5 if vote.preferred is None else float(vote.preferred == first)


def _share(first: str, votes: Sequence[Answer], captions: Sequence[str]) -> Interval:
    """Mean over pairs of the first's share of a pair's votes."""
    prompts = [vote.question.left.prompt for vote in votes]
    of = Counter(prompts)
    weights = np.array([1 / (len(of) * of[prompt]) for prompt in prompts])
    worth = np.array([_worth(vote, first) for vote in votes])
    share = min(max(float(weights @ worth), 0.0), 1.0)
    cells = statistics.parts(
        weights * (worth - share), _captions(votes, captions), [vote.rater for vote in votes]
    )
    low, high = statistics.bounded(
        share, statistics.squared_margin(cells), most=1, units=statistics.units(cells)
    )
    return Interval(share, low, high, len(of))


def _sign(first: str, votes: Sequence[Answer], captions: Sequence[str]) -> SignTest:
    leanings: defaultdict[str, float] = defaultdict(float)
    for vote, caption in zip(votes, _captions(votes, captions), strict=True):
        leanings[caption] += _worth(vote, first) - 0.5
    return preferences.sign_test(list(leanings.values()))


def _scores(
    votes: Sequence[Answer], painters: Sequence[str], captions: Sequence[str]
) -> dict[str, Interval]:
    """Scores of all painters; of none while some of them were not compared yet."""
    of = _captions(votes, captions)
    if len(set(of)) < 2:
        return {}
    places = [sorted(map(painters.index, _painters(vote))) for vote in votes]
    ballots = Ballots(
        first=[first for first, _ in places],
        second=[second for _, second in places],
        worth=[
            _worth(vote, painters[first])
            for vote, (first, _) in zip(votes, places, strict=True)
        ],
        captions=of,
        raters=[vote.rater for vote in votes],
    )
    try:
        found = preferences.scores(ballots, len(painters))
    except ValueError:
        return {}
    return dict(zip(painters, found, strict=True))


def _kappa(
    first: str, second: str, votes: Sequence[Answer], captions: Sequence[str]
) -> Interval | None:
    """Kappa over (pair, dimension) items, chance by dimension."""
    answers = [first, second, None]
    items: dict[tuple[int, str], list[int]] = {}
    for vote in votes:
        item = (vote.question.left.prompt, vote.question.dimension)
        items.setdefault(item, [0, 0, 0])[answers.index(vote.preferred)] += 1
    prompts, dimensions = zip(*items, strict=True)
    return preferences.kappa(
        list(items.values()), dimensions, [captions[prompt] for prompt in prompts]
    )
