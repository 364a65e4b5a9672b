"""The walk over the criteria tree with one picture: which prompts are sent, and the result.

The walk is a generator: it yields a prompt, receives the value that was read from the answer,
and returns the result. So it runs the same over new answers and over cached ones.
"""

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from atelier.annotators.comparing import Choice
from atelier.annotators.protocol import PLAIN, Wording
from atelier.annotators.vlm import prompts
from atelier.annotators.vlm.prompts import Activation, Prompt, Verdict
from atelier.config.annotation import VLMParams
from atelier.criteria.annotations import Judgement, Rationale
from atelier.criteria.tree import Pole, Tree

Asking = tuple[Prompt[Any], int]  # a prompt, and the number of its vote


@dataclass(frozen=True)
class VLMRequest:
    """A picture to judge.

    Attributes:
        image: sha256 of the file's bytes.
        file: Its path.
        title: The words of its name, if a caption is wanted; None if it has one.
        wording: How the model is asked.
    """

    image: str
    file: Path
    title: str | None
    wording: Wording = PLAIN

    @property
    def files(self) -> Sequence[Path]:
        """The pictures that are shown."""
        return (self.file,)


@dataclass(frozen=True)
class ComparisonRequest:
    """Two pictures to compare, in this order.

    Attributes:
        image: Hash of both, by which answers are found again.
        file: The first picture.
        second: The second one.
        criteria: Paths that are asked about.
    """

    image: str
    file: Path
    second: Path
    criteria: Sequence[str]

    @property
    def files(self) -> Sequence[Path]:
        """The pictures that are shown, in their order."""
        return (self.file, self.second)


@dataclass(frozen=True)
class ProposalRequest:
    """Some pictures, of which criteria are asked for.

    Attributes:
        image: Hash of the pictures, by which answers are found again.
        files: The pictures that are shown, in their order; none, if an expert's text is read.
        prompt: What is asked.
    """

    image: str
    files: Sequence[Path]
    prompt: Prompt[Tree]

    @property
    def file(self) -> str:
        """What is named in messages."""
        return f"{len(self.files)} labelled pictures"


@dataclass(frozen=True)
class ProposalResult:
    """The criteria that the model proposes.

    Attributes:
        proposed: Them.
        answered_by: As ``VLMResult.answered_by``.
    """

    proposed: Tree
    answered_by: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ComparisonResult:
    """What the model says of two pictures.

    Attributes:
        more: Which shows more of the good pole, by criterion.
        answered_by: As ``VLMResult.answered_by``.
    """

    more: Mapping[str, Choice]
    answered_by: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class VLMResult:
    """What the model says of one picture, abstentions left out.

    Attributes:
        judgements: In the order of the tree.
        rationales: One for each judgement.
        caption: If one was wanted.
        criteria: Number of criteria that were judged.
        answered_by: Number of answers by the model that the server named, where it named one.
    """

    judgements: list[Judgement]
    rationales: list[Rationale]
    caption: str | None
    criteria: int
    answered_by: Counter[str] = field(default_factory=Counter)


Asked = VLMRequest | ComparisonRequest | ProposalRequest
Result = VLMResult | ComparisonResult | ProposalResult


@dataclass(frozen=True)
class Walker:
    """The prompts that one tree and one section of settings lead to."""

    tree: Tree
    params: VLMParams

    def walk(self, request: Asked) -> Generator[Asking, Any, Result]:
        """Yield what to ask about a request, receive each answer, return the result."""
        if isinstance(request, ComparisonRequest):
            return self._comparison(request)
        if isinstance(request, ProposalRequest):
            return self._proposal(request)
        return self._judgement(request)

    def _proposal(self, request: ProposalRequest) -> Generator[Asking, Any, ProposalResult]:
        proposed = yield request.prompt, 0
        return ProposalResult(proposed)

    def _comparison(
        self, request: ComparisonRequest
    ) -> Generator[Asking, Any, ComparisonResult]:
        more: dict[str, Choice] = {}
        for part in prompts.parts(list(request.criteria), self.params.criteria_per_call):
            more |= yield prompts.comparing(self.tree, part), 0
        return ComparisonResult(more)

    def _judgement(self, request: VLMRequest) -> Generator[Asking, Any, VLMResult]:
        caption, wording = None, request.wording
        again = wording.repeat
        if request.title is not None:
            caption = yield prompts.describing(self.tree, request.title), 0
        active = yield self.activation, again
        if self.in_rounds:
            within = prompts.inside(self.tree, active)
            chosen = (yield prompts.closer(self.tree, within), again) if within else ()
            active = Activation(active.words, chosen)
        paths = prompts.judged(self.tree, active)
        verdicts: dict[str, list[Verdict]] = {path: [] for path in paths}
        for part in prompts.parts(paths, self.params.criteria_per_call):
            prompt = prompts.judging(self.tree, part, wording)
            for vote in range(self.params.votes):
                asking = prompt, vote + again * self.params.votes
                for path, verdict in (yield asking).items():
                    verdicts[path].append(verdict)
        return self._result(request.image, verdicts, caption)

    def all_prompts(self, *, caption: bool) -> list[Prompt[Any]]:
        """Return the prompts about a picture in which every criterion matters."""
        parts = prompts.parts(list(self.tree.leaves()), self.params.criteria_per_call)
        asked: list[Prompt[Any]] = [prompts.judging(self.tree, part) for part in parts]
        asked = asked * self.params.votes + [self.activation]
        if self.in_rounds:
            asked.append(prompts.closer(self.tree, list(prompts.groups(self.tree))))
        return asked + [prompts.describing(self.tree, "")] * caption

    @cached_property
    def in_rounds(self) -> bool:
        """Whether branches are asked for first; not where the branches are the groups."""
        groups = list(prompts.groups(self.tree))
        return self.params.activation == "in_rounds" and prompts.branches(self.tree) != groups

    @cached_property
    def activation(self) -> Prompt[Activation]:
        """The first prompt: what matters in the picture."""
        listed = prompts.branches if self.in_rounds else prompts.groups
        return prompts.activation(self.tree, list(listed(self.tree)))

    def _result(
        self, image: str, verdicts: Mapping[str, list[Verdict]], caption: str | None
    ) -> VLMResult:
        result, by = VLMResult([], [], caption, len(verdicts)), name(self.params)
        for path, votes in verdicts.items():
            won = majority(votes)
            if won is None:
                continue
            result.judgements.append(
                Judgement(
                    image=image,
                    criterion=path,
                    pole=won.pole,
                    annotator=by,
                    confidence=won.confidence,
                )
            )
            result.rationales.append(
                Rationale(image=image, criterion=path, annotator=by, evidence=won.evidence)
            )
        return result


@dataclass(frozen=True)
class Won:
    """The outcome of several votes on one criterion."""

    pole: Pole
    confidence: float
    evidence: str


def majority(votes: Sequence[Verdict]) -> Won | None:
    """Return what most of the votes say; None for an abstention or a tie.

    The confidence of one vote is its own. Of several it is the share that said so
    (self-consistency): how sure a model is shows in how often it says the same.

    References:
        Wang et al., Self-consistency improves chain of thought reasoning, arXiv:2203.11171.
    """
    counts = Counter(vote.pole for vote in votes).most_common()
    pole, most = counts[0]
    tied = len(counts) > 1 and counts[1][1] == most
    if pole == "abstain" or tied:
        return None
    first = next(vote for vote in votes if vote.pole == pole)
    confidence = first.confidence if len(votes) == 1 else most / len(votes)
    return Won(pole, confidence, first.evidence)


def name(params: VLMParams) -> str:
    """Return the name that signs the judgements: the version of the prompts, and the model."""
    return f"vlm-{prompts.VERSION} {params.model}"
