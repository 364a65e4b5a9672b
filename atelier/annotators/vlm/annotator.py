"""The annotator of ``vlm``: opens the pictures, asks the agent, and tells who answered."""

import contextlib
import dataclasses
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atelier import images
from atelier.annotators.comparing import Compared, turned
from atelier.annotators.inspection import Inspector, Limits
from atelier.annotators.protocol import Answer, Answers, Picture, answer
from atelier.annotators.vlm import walk
from atelier.annotators.vlm.agent import Agent, criteria_name
from atelier.annotators.vlm.client import same_model
from atelier.annotators.vlm.cost import Cost
from atelier.annotators.vlm.prompts import Prompt
from atelier.annotators.vlm.response_cache import ResponseCache
from atelier.annotators.vlm.walk import (
    ComparisonRequest,
    ProposalRequest,
    VLMRequest,
    VLMResult,
)
from atelier.config.annotation import VLMParams
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError
from atelier.reporting import Report, silent


@dataclass(frozen=True)
class VLM:
    """A vision-language model that judges by a tree.

    Attributes:
        tree: The criteria.
        params: Which model, where, and how it is asked.
        limits: Which pictures can be used.
        responses: Folder of response caches, one file for each model.
    """

    tree: Tree
    params: VLMParams
    limits: Limits
    responses: Path

    @property
    def name(self) -> str:
        """The version of the prompts, and the model."""
        return walk.name(self.params)

    @property
    def asks(self) -> bool:
        """It is asked in words."""
        return True

    @property
    def inspector(self) -> Inspector:
        """Opens and checks each picture; the model sees it later."""
        return Inspector(self.limits)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Agent]:
        """Yield the agent with its response cache.

        Raises:
            AnnotationError: The cache is in use, or damaged.
        """
        name = re.sub(r"[^\w.-]+", "-", self.params.model)
        path = self.responses / f"{name}.jsonl"
        with ResponseCache(path, criteria_name(self.tree)) as cache:
            yield Agent(
                self.tree,
                self.params,
                cache,
                largest_pixels=self.limits.largest_pixels,
                sizes=self.limits.sizes_for(self.params.pixels),
            )

    def judge_many(
        self, pictures: Sequence[Picture], report: Report, journal: Path | None = None
    ) -> Answers:
        """Open and check the pictures, then ask about each that the cache does not know."""
        files = [one.file for one in pictures]

        def opened(done: int, values: Mapping[str, float]) -> None:
            report(0, {"opened": done, **values})

        with self.opened() as agent:
            seen = [answer(s) for s in self.inspector.inspect_many(files, opened, journal)]
            requests = _requests(pictures, seen)
            more = len(pictures) - len(requests)  # not usable, or the same bytes again
            failed = agent.consult(
                list(requests.values()), lambda done, values: report(more + done, values)
            )
            results = {image: agent.recall(one) for image, one in requests.items()}
            spent, each = agent.spent(), _average(map(agent.cost, requests.values()))
        answered_by = sum((one.answered_by for one in results.values() if one), Counter[str]())
        return Answers(
            [_answer(one, results, failed) for one in seen],
            spent={
                "prompt_tokens": spent.prompt_tokens,
                "completion_tokens": spent.completion_tokens,
                "cost": spent.price,
            },
            answered_by=answered_by,
            warnings=self._warnings(answered_by),
            a_picture=each,
        )

    def compare_many(
        self, pairs: Sequence[tuple[Path, Path]], criteria: Sequence[str], report: Report
    ) -> list[Compared | None]:
        """Ask about each pair in both orders, where the cache does not know."""
        asked = [
            (_comparison(first, second, criteria), _comparison(second, first, criteria))
            for first, second in pairs
        ]
        every = {one.image: one for both in asked for one in both}
        with self.opened() as agent:
            agent.consult(list(every.values()), lambda done, values: report(done // 2, values))
            found = {image: agent.recall_comparison(one) for image, one in every.items()}
        compared: list[Compared | None] = []
        for forth, back in asked:
            there, again = found[forth.image], found[back.image]
            if there is None or again is None:
                compared.append(None)
            else:
                compared.append(Compared(there.more, turned(again.more)))
        return compared

    def propose(self, prompt: Prompt[Tree], files: Sequence[Path]) -> Tree:
        """Ask for criteria, and show some pictures.

        Raises:
            AnnotationError: There is no answer that describes criteria.
        """
        shown = " ".join(images.sha256(file) for file in files)
        request = ProposalRequest(hashlib.sha256(shown.encode()).hexdigest(), files, prompt)
        with self.opened() as agent:
            failed = agent.consult([request], silent)
            proposed = agent.recall_proposal(request)
        if proposed is None:
            reason = failed.get(request.image, "no answer")
            raise AnnotationError(f"{self.params.model} proposed no criteria: {reason}")
        return proposed

    def _warnings(self, answered_by: Counter[str]) -> list[str]:
        """Say so where a server answered with another model than it was asked for."""
        asked = self.params.model
        others = {one: n for one, n in answered_by.items() if not same_model(asked, one)}
        if not others:
            return []
        listed = ", ".join(f"{one!r} ({n})" for one, n in sorted(others.items()))
        return [
            f"Warning: {sum(others.values())} of {answered_by.total()} answers are by "
            f"{listed}, as {self.params.base_url} says, and annotate.vlm.model asks for "
            f"{asked!r}; the judgements are signed {self.name!r}. Load that model at the "
            "server, or let annotate.vlm.model be the name that it gives"
        ]


def _requests(pictures: Sequence[Picture], seen: Sequence[Answer]) -> dict[str, VLMRequest]:
    """Return what is asked, by image; of files with the same bytes, about the first."""
    requests: dict[str, VLMRequest] = {}
    for picture, one in zip(pictures, seen, strict=True):
        if one.image is not None and one.unanswered is None:
            request = VLMRequest(one.image, picture.file, picture.title, picture.wording)
            requests.setdefault(one.image, request)
    return requests


def _answer(
    seen: Answer, results: Mapping[str, VLMResult | None], failed: Mapping[str, str]
) -> Answer:
    if seen.image is None or seen.unanswered is not None:
        return seen
    result = results[seen.image]
    if result is None:
        return dataclasses.replace(seen, unanswered=failed[seen.image])
    return dataclasses.replace(
        seen,
        judgements=result.judgements,
        rationales=result.rationales,
        caption=result.caption,
    )


def _comparison(first: Path, second: Path, criteria: Sequence[str]) -> ComparisonRequest:
    both = f"{images.sha256(first)} {images.sha256(second)}"
    image = hashlib.sha256(both.encode()).hexdigest()
    return ComparisonRequest(image, first, second, criteria)


def _average(costs: Iterable[Cost | None]) -> dict[str, float]:
    """What a picture costs on average, of those that were answered."""
    known = [one for one in costs if one is not None]
    if not known:
        return {}
    total = functools.reduce(Cost.plus, known)
    tokens = total.prompt_tokens + total.completion_tokens
    return {
        "calls": total.calls / len(known),
        "tokens": tokens / len(known),
        "cost": total.price / len(known),
    }
