"""Aggregation of several annotators' judgements of one image, by a rule of the settings.

A question is one criterion on one image. An annotator that abstains has no vote. If a rule
finds no answer, the criterion is not active on that image.

The result is a judgement like any other. It is signed with the names of the annotators that
won, joined by `` + ``. Its confidence is their mean confidence times their share of the weight,
so disputed judgements weigh less in training.
"""

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, get_args

from atelier.config.annotation import Adjudication
from atelier.criteria.annotations import Judgement
from atelier.criteria.tree import Pole
from atelier.errors import ParamsError

Outcome = Literal["alone", "agreed", "decided", "undecided", "too_few", "unanswered"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Settled:
    """The judgements that count, and the outcome of each question.

    Attributes:
        judgements: One for each question that has an answer, in the order of the questions.
        outcomes: Number of questions that one annotator answered ``alone``, on which all
            ``agreed``, between whose poles the rule ``decided`` or did not (``undecided``),
            that ``too_few`` annotators answered for the quorum, or that no trusted annotator
            answered (``unanswered``).
    """

    judgements: list[Judgement]
    outcomes: Mapping[Outcome, int]


def settle(judgements: Iterable[Judgement], rule: Adjudication) -> Settled:
    """Return what counts; of two judgements by one annotator on one question the later one."""
    questions: dict[tuple[str, str], dict[str, Judgement]] = {}
    for one in judgements:
        questions.setdefault((one.image, one.criterion), {})[one.annotator] = one
    counted: list[Judgement] = []
    outcomes = dict.fromkeys(OUTCOMES, 0)
    for answers in questions.values():
        said = list(answers.values())
        won = _by_rule(said, rule)
        outcomes[_outcome(said, won, rule)] += 1
        if won is not None:
            counted.append(won)
    return Settled(counted, outcomes)


def unanimous(said: Sequence[Judgement]) -> Judgement | None:
    """Return what all say; None if two say opposite things."""
    return _signed(said, 1.0) if len({one.pole for one in said}) == 1 else None


def majority(said: Sequence[Judgement], quorum: int) -> Judgement | None:
    """Return the pole of the majority; None if fewer than ``quorum`` judged, or at a tie.

    The share of the weight is ``votes for the pole / votes``.
    """
    if len(said) < quorum:
        return None
    return _heavier(said, [1.0] * len(said))


def weighted(said: Sequence[Judgement]) -> Judgement | None:
    """Return the pole with the larger sum of confidences; None at a tie.

    The share of the weight is ``confidence in the pole / confidence in both``.
    """
    return _heavier(said, [one.confidence for one in said])


def trusted(said: Sequence[Judgement], order: Sequence[str]) -> Judgement | None:
    """Return the judgement of the most trusted; None if they contradict each other or abstain.

    Args:
        said: Judgements of one question.
        order: Names, the most trusted first; ``*`` stands for any letters, so several may be
            trusted alike. Annotators that match no name are ignored.
    """
    for name in order:
        heard = [one for one in said if fnmatch.fnmatchcase(one.annotator, name)]
        if heard:
            return unanimous(heard)
    return None


def refuse_idle(rule: Adjudication, annotators: Collection[str]) -> None:
    """Refuse a trusted name that no annotator has: it is misspelled.

    Raises:
        ParamsError: Names it, and those there are.
    """
    if rule.rule != "trust":
        return
    for name in rule.order:
        if not fnmatch.filter(annotators, name):
            raise ParamsError(
                f"annotate.adjudication.order trusts {name!r}, but no annotator has that name; "
                f"there is {', '.join(map(repr, sorted(annotators)))} (`human *` stands for "
                "all people)"
            )


def _by_rule(said: Sequence[Judgement], rule: Adjudication) -> Judgement | None:
    match rule.rule:
        case "unanimous":
            return unanimous(said)
        case "majority":
            return majority(said, rule.quorum)
        case "weighted":
            return weighted(said)
        case "trust":
            return trusted(said, rule.order)


def _outcome(said: Sequence[Judgement], won: Judgement | None, rule: Adjudication) -> Outcome:
    differ = len({one.pole for one in said}) > 1
    if won is not None:
        return "decided" if differ else "agreed" if len(said) > 1 else "alone"
    if rule.rule == "majority" and len(said) < rule.quorum:
        return "too_few"
    if rule.rule == "trust" and not any(_is_heard(one, rule.order) for one in said):
        return "unanswered"
    return "undecided"


def _is_heard(one: Judgement, order: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(one.annotator, name) for name in order)


def _heavier(said: Sequence[Judgement], weights: Sequence[float]) -> Judgement | None:
    """The pole of more weight, by whatever each judgement weighs."""
    mass: dict[Pole, float] = {}
    for one, weight in zip(said, weights, strict=True):
        mass[one.pole] = mass.get(one.pole, 0.0) + weight
    if len(mass) == 1:
        return _signed(said, 1.0)
    first, second = mass["positive"], mass["negative"]
    if first == second:
        return None
    pole: Pole = "positive" if first > second else "negative"
    return _signed([one for one in said if one.pole == pole], mass[pole] / (first + second))


def _signed(winners: Sequence[Judgement], share: float) -> Judgement:
    if len(winners) == 1 and share == 1:
        return winners[0]
    name = " + ".join(one.annotator for one in winners)
    confidence = min(1.0, share * fmean(one.confidence for one in winners))
    return winners[0].model_copy(update={"annotator": name, "confidence": confidence})
