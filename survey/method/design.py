"""Design of a study: blind pairs and sheets, balanced by pair, side and dimension.

A *pair* is two models' pictures of one prompt with one starting noise. A *sheet* is what one
person is asked, in order: each of its pairs along every dimension, then the next pair. The
sheets of one group show every pair to the planned number of people, to half of them with the
sides swapped. Between the pairs are *checks*, in which one of the two pictures is ruined, so
that an attentive person knows the answer. At the end some questions are repeated with the sides
swapped.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atelier.images import Pixels

_RUINED_CELLS = 6  # a ruined picture keeps so many flat squares a side
_RUINED_NOISE = 60  # standard deviation of what is added to each pixel, of 255


@dataclass(frozen=True)
class Picture:
    """What is shown on one side."""

    painter: str
    prompt: int  # its place among the evaluated prompts
    ruined: bool = False


@dataclass(frozen=True)
class Question:
    """Which of the two is better along ``dimension``?"""

    left: Picture
    right: Picture
    dimension: str

    @property
    def check(self) -> bool:
        """Say whether the answer is known: one of the two is ruined."""
        return self.left.ruined != self.right.ruined

    @property
    def swapped(self) -> "Question":
        """Return the same question with the sides swapped."""
        return Question(self.right, self.left, self.dimension)


Sheet = tuple[Question, ...]
_Pair = tuple[Picture, Picture]


@dataclass(frozen=True)
class Plan:
    """How a study is drawn.

    Attributes:
        painters: Whom to compare, every one with every other.
        prompts: How many prompts all of them painted.
        dimensions: Along what each pair is compared.
        pairs: On how many of the prompts each two painters meet.
        raters: People who see each pair.
        pairs_each: Pairs that one person sees, at most.
        checks: Questions with a ruined picture on each sheet.
        repeats: Questions that come again on each sheet.
        seed: Same seed, same sheets.
    """

    painters: Sequence[str]
    prompts: int
    dimensions: Sequence[str]
    pairs: int
    raters: int
    pairs_each: int
    checks: int
    repeats: int
    seed: int


def sheets(plan: Plan, group: int) -> list[Sheet]:
    """Return the sheets of one group; each pair is on exactly ``plan.raters`` of them.

    The prompts are the same for all groups; order, sides and checks are not. In each of
    ``plan.raters`` rounds all pairs are shuffled and cut into sheets of nearly one length;
    every other round has the sides swapped, so that with an even number of rounds each pair is
    seen equally often either way.

    Args:
        plan: What to draw.
        group: The group's place among the groups.

    Raises:
        ValueError: There are fewer prompts than pairs.
    """
    if plan.pairs > plan.prompts:
        raise ValueError(
            f"{plan.pairs} pairs of each two models, but only {plan.prompts} prompts"
        )
    pairs = _pairs(plan)
    random = np.random.default_rng([plan.seed, 1, group])
    turned = random.permutation(np.arange(len(pairs)) % 2).astype(bool)
    drawn: list[Sheet] = []
    for round_ in range(plan.raters):
        sides = turned if round_ % 2 == 0 else ~turned
        shown = [(b, a) if turn else (a, b) for (a, b), turn in zip(pairs, sides, strict=True)]
        count = -(-len(pairs) // plan.pairs_each)
        for chunk in np.array_split(random.permutation(len(pairs)), count):
            drawn.append(_sheet([shown[i] for i in chunk], plan, len(drawn), random))
    return drawn


def ruin(picture: Pixels, seed: int) -> Pixels:
    """Return the ruined picture of a check: a few flat squares under coarse noise.

    An attentive person does not prefer it along any dimension. It keeps the picture's colors,
    so that it does not stand out at a glance.
    """
    random = np.random.default_rng(seed)
    rows, columns = picture.shape[:2]
    cells = min(_RUINED_CELLS, rows, columns)
    at = [np.arange(side) * cells // side for side in (rows, columns)]
    middle = [((np.arange(cells) + 0.5) * side / cells).astype(int) for side in (rows, columns)]
    flat = picture[np.ix_(*middle)][np.ix_(*at)].astype(np.float64)
    noisy = flat + random.normal(0, _RUINED_NOISE, flat.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _pairs(plan: Plan) -> list[_Pair]:
    random = np.random.default_rng([plan.seed, 0])
    prompts = sorted(int(p) for p in random.permutation(plan.prompts)[: plan.pairs])
    return [
        (Picture(one, prompt), Picture(other, prompt))
        for one, other in itertools.combinations(plan.painters, 2)
        for prompt in prompts
    ]


def _sheet(
    pairs: Sequence[_Pair], plan: Plan, number: int, random: np.random.Generator
) -> Sheet:
    count = len(plan.dimensions)
    blocks = [
        [Question(left, right, plan.dimensions[d]) for d in random.permutation(count)]
        for left, right in pairs
    ]
    again = _repeats(blocks, plan.repeats, random)
    for place in range(plan.checks):
        dimension = plan.dimensions[(number * plan.checks + place) % len(plan.dimensions)]
        check = _check(plan, dimension, bool((number + place) % 2), random)
        blocks.insert(1 + int(random.integers(len(blocks))), [check])
    return (*itertools.chain.from_iterable(blocks), *again)


def _check(
    plan: Plan, dimension: str, ruined_left: bool, random: np.random.Generator
) -> Question:
    painter = plan.painters[int(random.integers(len(plan.painters)))]
    prompt = int(random.integers(plan.prompts))
    whole, ruined = Picture(painter, prompt), Picture(painter, prompt, ruined=True)
    question = Question(whole, ruined, dimension)
    return question.swapped if ruined_left else question


def _repeats(
    blocks: Sequence[Sequence[Question]], count: int, random: np.random.Generator
) -> list[Question]:
    """Return questions of the sheet's first half, to be asked again at its end."""
    early = list(itertools.chain.from_iterable(blocks[: -(-len(blocks) // 2)]))
    chosen = random.permutation(len(early))[:count]
    return [early[i].swapped for i in chosen]
