"""The agent: a vision-language model that walks the tree as an expert would.

Of each picture it is asked which groups of criteria matter, then the criteria of those groups
that apply to such a picture: a few questions, not one for each criterion. What is asked, and
how answers are read, is in ``questions``; every answer goes into the ``ledger`` first.

A question that is not answered, or not fitly, is tried again with backoff, an unfit answer
after one round of repair; in the end its picture is set aside with what the model said. The
walk itself is a generator of questions, so that it runs the same over new answers (``ask``)
and over old ones (``recall``).
"""

import asyncio
import base64
import hashlib
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tenacity
from PIL import Image

from atelier import images
from atelier.annotators.vlm import prompts
from atelier.annotators.vlm.client import (
    Endpoint,
    FailedError,
    Message,
    Reply,
    Request,
    instruction,
    tokens,
)
from atelier.annotators.vlm.prompts import Activation, Question, UnfitError, Verdict
from atelier.annotators.vlm.response_cache import Answer, ResponseCache, digest
from atelier.config.annotation import VLMParams
from atelier.config.fields import Params
from atelier.criteria.annotations import Hash, Judgement
from atelier.criteria.tree import Pole, Tree
from atelier.errors import AnnotationError, DiskError, ImageError
from atelier.reporting import Report

_JPEG_QUALITY = 95
_FIRST_WAIT = 0.5  # seconds, at most, before the second try; it doubles
_SHOWN = 500  # characters of an unfit answer that the quarantine list repeats
_HOPELESS = 8  # pictures in a row, at least, without a usable answer end the run
_POLL = 0.05  # seconds between two looks at what is spent, near the cap
_READ_AHEAD = 4  # pictures, at least, that are ready while others wait for the server
_VERDICT_TOKENS = 60  # of one criterion's verdict, about; for estimates
_OTHER_TOKENS = 200  # of an activation or a caption, about; for estimates


class Rationale(Params):
    """What the annotator saw that made it speak, a line for each judgement."""

    image: Hash
    criterion: str
    annotator: str
    evidence: str


@dataclass(frozen=True)
class VLMRequest:
    """A picture to judge.

    Attributes:
        image: sha256 of the file's bytes.
        file: Where it lies.
        title: What it is called, if a caption is wanted; None if it has one.
    """

    image: str
    file: Path
    title: str | None


@dataclass(frozen=True)
class VLMResult:
    """What the agent says of one picture, abstentions left out.

    Attributes:
        caption: If one was wanted.
        criteria: How many were judged.
    """

    judgements: list[Judgement]
    evidence: list[Rationale]
    caption: str | None
    criteria: int


@dataclass(frozen=True)
class Cost:
    """Calls and tokens, with what they cost."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    price: float

    def times(self, count: float) -> "Cost":
        """Return the cost of doing it so many times."""
        return Cost(
            round(self.calls * count),
            round(self.prompt_tokens * count),
            round(self.completion_tokens * count),
            self.price * count,
        )

    def plus(self, other: "Cost") -> "Cost":
        """Return both together."""
        return Cost(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.price + other.price,
        )

    def less(self, other: "Cost") -> "Cost":
        """Return what is left of this without the other."""
        return self.plus(other.times(-1))


class _HaltedError(Exception):
    """The run ends: what is on its way comes home, nothing more is sent."""


class _UnansweredError(Exception):
    """The ledger lacks an answer."""


_Asking = tuple[Question[Any], int]  # and which vote


class Agent:
    """A model, the criteria it judges by, and the ledger of what it said.

    Args:
        tree: The criteria.
        params: Which model, where, and how it is asked.
        ledger: Where its answers are kept.
        largest_pixels: A picture of more pixels is refused.
    """

    def __init__(
        self, tree: Tree, params: VLMParams, ledger: ResponseCache, *, largest_pixels: int
    ) -> None:
        self.tree, self.params, self.ledger = tree, params, ledger
        self.name = name(params)
        self._largest_pixels = largest_pixels
        self._halt: AnnotationError | DiskError | None = None
        self._underway: list[float] = []  # likely prices of requests on their way
        self._barren = 0  # pictures in a row without a usable answer
        self._unheard: list[VLMRequest] = []  # nobody was answered while these were asked about
        self._heard = -math.inf  # when a request was last answered, by time.monotonic

    def consult(self, sights: Sequence[VLMRequest], report: Report) -> dict[str, str]:
        """Ask about all pictures of which the ledger does not know enough.

        The answers are in the ledger afterwards; ``recall`` reads them.

        Args:
            sights: Each picture once.
            report: Told the number of pictures done, with cost, tokens and pictures set aside.

        Returns:
            Why a picture could not be judged, for those that could not.

        Raises:
            AnnotationError: The server will answer nobody, or the cost cap is reached; what
                was on its way came home and is kept.
            DiskError: The ledger cannot be written.
            ParamsError: The key is absent.
        """
        return asyncio.run(self._consult(sights, report))

    def recall(self, sight: VLMRequest) -> VLMResult | None:
        """Return what the ledger holds of a picture; None if answers are missing."""
        retraced = self._retrace(sight)
        return None if retraced is None else retraced[0]

    def cost(self, sight: VLMRequest) -> Cost | None:
        """Return about what all questions about a picture cost; None if answers are missing."""
        retraced = self._retrace(sight)
        if retraced is None:
            return None
        asked = [question for question, _ in retraced[1]]
        return self._cost(
            len(asked),
            sum(map(self._prompt_tokens, asked)),
            sum(map(_completion_tokens, asked)),
        )

    def _retrace(self, sight: VLMRequest) -> tuple[VLMResult, list[_Asking]] | None:
        """What the ledger holds of a picture, and what was asked for it."""
        walk, known = self._walk(sight), self.ledger.of(sight.image)
        asked: list[_Asking] = []
        try:
            asked.append(next(walk))
            while True:
                asked.append(walk.send(self._known(asked[-1], known)))
        except StopIteration as end:
            return end.value, asked
        except _UnansweredError:
            return None

    def spent(self) -> Cost:
        """Return what all answers by these criteria cost so far, in this and former runs."""
        ledger = self.ledger
        return self._cost(0, ledger.prompt_tokens, ledger.completion_tokens)

    def most(self, *, caption: bool) -> Cost:
        """Return about what a picture costs in which every criterion matters."""
        asked = self._all_questions(caption=caption)
        return self._cost(
            len(asked),
            sum(map(self._prompt_tokens, asked)),
            sum(map(_completion_tokens, asked)),
        )

    def schema_tokens(self) -> int:
        """Return about how many tokens the schemas of ``most`` are, for servers that count."""
        if instruction(self.params, {}):
            return 0  # told in words, which are counted
        asked = self._all_questions(caption=False)
        return sum(tokens(json.dumps(question.schema)) for question in asked)

    def _all_questions(self, *, caption: bool) -> list[Question[Any]]:
        sent = prompts.parts(list(self.tree.leaves()), self.params.criteria_per_call)
        asked: list[Question[Any]] = [prompts.judging(self.tree, part) for part in sent]
        asked = asked * self.params.votes + [self._activation]
        if self._in_rounds:
            asked.append(prompts.closer(self.tree, list(prompts.groups(self.tree))))
        return asked + [prompts.describing(self.tree, "")] * caption

    async def _consult(self, sights: Sequence[VLMRequest], report: Report) -> dict[str, str]:
        self._halt, self._barren = None, 0
        self._unheard = []
        left = [sight for sight in sights if self.recall(sight) is None]
        failed: dict[str, str] = {}
        done = len(sights) - len(left)
        report(done, self._values(failed))

        def settled() -> None:
            nonlocal done
            done += 1
            report(done, self._values(failed))

        async with Endpoint(self.params) as endpoint:
            await self._work_off(left, endpoint, failed, settled)
            if self._unheard and self._halt is None:
                # The server may be back since; pictures are not lost because it was away.
                again, self._unheard = self._unheard, []
                await self._work_off(again, endpoint, failed, lambda: None)
        if self._halt is not None:
            raise self._halt
        if self._unheard:
            raise self._nobody_answers(failed)
        return failed

    async def _work_off(
        self,
        sights: Sequence[VLMRequest],
        endpoint: Endpoint,
        failed: dict[str, str],
        settled: Callable[[], None],
    ) -> None:
        queue = iter(sights)
        workers = [
            self._work(queue, endpoint, failed, settled)
            for _ in range(min(len(sights), self._at_once()))
        ]
        await asyncio.gather(*workers)

    def _at_once(self) -> int:
        """Pictures in hand: a free turn at the server should never wait for a picture."""
        concurrency = self.params.concurrency
        return concurrency + max(_READ_AHEAD, concurrency // 2)

    async def _work(
        self,
        queue: Iterator[VLMRequest],
        endpoint: Endpoint,
        failed: dict[str, str],
        settled: Callable[[], None],
    ) -> None:
        """Take pictures off the queue until it is empty or the run ends."""
        for sight in queue:
            try:
                await self._ask(sight, endpoint)
                failed.pop(sight.image, None)
                self._barren = 0
            except _HaltedError:
                return
            except (AnnotationError, DiskError) as error:
                self._halt = self._halt or error
                return
            except (FailedError, ImageError) as failure:
                failed[sight.image] = str(failure)
                if isinstance(failure, FailedError) and failure.away:
                    self._unheard.append(sight)
                self._count_barren(str(failure))
            settled()

    async def _ask(self, sight: VLMRequest, endpoint: Endpoint) -> None:
        """Walk with one picture, asking what the ledger does not know."""
        known = self.ledger.of(sight.image)
        picture = await asyncio.to_thread(self._picture, sight)
        walk = self._walk(sight)
        try:
            asking = next(walk)
            while True:
                try:
                    value = self._known(asking, known)
                except _UnansweredError:
                    value = await self._answer(asking, sight, picture, endpoint)
                asking = walk.send(value)
        except StopIteration:
            return

    def _walk(self, sight: VLMRequest) -> Generator[_Asking, Any, VLMResult]:
        """Yield what to ask, be sent what was answered, return what it comes to."""
        caption = None
        if sight.title is not None:
            caption = yield prompts.describing(self.tree, sight.title), 0
        active = yield self._activation, 0
        if self._in_rounds:
            within = prompts.inside(self.tree, active)
            chosen = (yield prompts.closer(self.tree, within), 0) if within else ()
            active = Activation(active.words, chosen)
        paths = prompts.judged(self.tree, active)
        verdicts: dict[str, list[Verdict]] = {path: [] for path in paths}
        for part in prompts.parts(paths, self.params.criteria_per_call):
            question = prompts.judging(self.tree, part)
            for vote in range(self.params.votes):
                for path, verdict in (yield question, vote).items():
                    verdicts[path].append(verdict)
        return self._opinion(sight.image, verdicts, caption)

    def _opinion(
        self, image: str, verdicts: Mapping[str, list[Verdict]], caption: str | None
    ) -> VLMResult:
        opinion = VLMResult([], [], caption, len(verdicts))
        for path, votes in verdicts.items():
            won = majority(votes)
            if won is None:
                continue
            opinion.judgements.append(
                Judgement(
                    image=image,
                    criterion=path,
                    pole=won.pole,
                    annotator=self.name,
                    confidence=won.confidence,
                )
            )
            opinion.evidence.append(
                Rationale(
                    image=image, criterion=path, annotator=self.name, evidence=won.evidence
                )
            )
        return opinion

    def _known(self, asking: _Asking, known: Mapping[str, str]) -> Any:
        question, vote = asking
        text = known.get(self._asked(question, vote))
        if text is None:
            raise _UnansweredError
        try:
            return prompts.read(question, text)
        except UnfitError:  # it was fit once: reading has become stricter since
            raise _UnansweredError from None

    async def _answer(
        self, asking: _Asking, sight: VLMRequest, picture: str, endpoint: Endpoint
    ) -> Any:
        """Ask until there is a fit answer, ``tries`` times at most, with backoff."""
        question, _ = asking
        began = time.monotonic()
        tries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_may_succeed),
            stop=tenacity.stop_after_attempt(self.params.tries),
            wait=self._wait,
            reraise=True,
        )
        try:
            return await tries(self._try, asking, sight, picture, endpoint)
        except FailedError as failure:
            raise FailedError(
                f"no usable answer to {question.topic!r} by {self.params.model}: {failure}",
                again=False,
                # Where others were answered meanwhile, it is this picture that fails.
                away=failure.away and self._heard < began,
            ) from None

    async def _try(
        self, asking: _Asking, sight: VLMRequest, picture: str, endpoint: Endpoint
    ) -> Any:
        """Ask once, and once more for a repair if the answer is whole but does not fit."""
        question = asking[0]
        messages = self._messages(question, picture)
        reply = await self._send(endpoint.request(messages, question.schema), asking, endpoint)
        try:
            return self._take(reply, asking, sight)
        except UnfitError as unfit:
            if reply.unfit is not None:
                raise FailedError(_said(unfit, reply), again=True) from None
            wrong = str(unfit)
        messages += _repair(reply, wrong)
        repaired = await self._send(
            endpoint.request(messages, question.schema), asking, endpoint
        )
        try:
            return self._take(repaired, asking, sight)
        except UnfitError as unfit:
            raise FailedError(_said(unfit, repaired), again=True) from None

    async def _send(self, request: Request, asking: _Asking, endpoint: Endpoint) -> Reply:
        """Wait for a turn, then send."""
        likely = self._likely_price(asking[0])
        async with endpoint.free:
            await self._afford(likely)
            if self._halt is not None:
                raise _HaltedError
            self._underway.append(likely)
            try:
                reply = await endpoint.complete(request)
                self._heard = time.monotonic()
                return reply
            finally:
                self._underway.remove(likely)

    async def _afford(self, likely: float) -> None:
        """End the run where one more answer would exceed the cap."""
        cap = math.inf if self.params.cost_cap is None else self.params.cost_cap
        while self._underway and self.spent().price + sum(self._underway) + likely > cap:
            await asyncio.sleep(_POLL)  # what is on its way may turn out cheaper
        if self.spent().price + likely > cap:
            self._halt = self._halt or self._cap_reached()

    def _take(self, reply: Reply, asking: _Asking, sight: VLMRequest) -> Any:
        """Write an answer down, then read it.

        Raises:
            UnfitError: It cannot be taken.
        """
        question, vote = asking
        unfit = None if reply.unfit is None else UnfitError(reply.unfit)
        value = None
        if unfit is None:
            try:
                value = prompts.read(question, reply.text)
            except UnfitError as error:
                unfit = error
        self.ledger.add(
            Answer(
                image=sight.image,
                asked=self._asked(question, vote),
                topic=question.topic,
                criteria=self.ledger.criteria,
                text=reply.text,
                unfit=None if unfit is None else str(unfit),
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
            )
        )
        if unfit is not None:
            raise unfit
        return value

    def _asked(self, question: Question[Any], vote: int) -> str:
        """Return the hash of all on which an answer depends beside the picture and chance."""
        params = self.params
        return digest(
            self._introduction,
            question.text,
            json.dumps(question.schema),
            params.model,
            params.answers,
            repr((params.pixels, params.temperature, vote)),
        )

    def _messages(self, question: Question[Any], picture: str) -> list[Message]:
        words = question.text + instruction(self.params, question.schema)
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": words},
        ]
        return [
            {"role": "system", "content": self._introduction},
            {"role": "user", "content": content},
        ]

    def _picture(self, sight: VLMRequest) -> str:
        """Return the middle square, which the painter sees as well, as a data URL."""
        image = images.read(sight.file, self._largest_pixels)
        file = io.BytesIO()
        square = Image.fromarray(images.square(image, self.params.pixels))
        square.save(file, "JPEG", quality=_JPEG_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

    def _count_barren(self, reason: str) -> None:
        """End the run where nothing succeeds: setting all pictures aside helps nobody."""
        self._barren += 1
        if self._barren >= max(_HOPELESS, self.params.concurrency) and self._halt is None:
            self._halt = AnnotationError(
                f"{self._barren} pictures in a row got no usable answer from "
                f"{self.params.base_url}; the last one: {reason}\n"
                "See annotate.vlm (base_url, model, answers, max_tokens); what was answered is "
                "kept, and the same command goes on."
            )

    def _nobody_answers(self, failed: Mapping[str, str]) -> AnnotationError:
        first = self._unheard[0]
        return AnnotationError(
            f"{len(self._unheard)} pictures got no answer from {self.params.base_url}, and "
            f"neither did any other while they were asked about; {first.file}: "
            f"{failed[first.image]}\n"
            "What was answered is kept; once the server is back, the same command goes on. If "
            "it is there and fails at these pictures alone, move them away."
        )

    def _cap_reached(self) -> AnnotationError:
        return AnnotationError(
            f"annotate.vlm.cost_cap, {self.params.cost_cap:g}, is reached: "
            f"{self.spent().price:.4g} is spent on answers by {self.params.model} and these "
            "criteria. They are kept; raise the cap, and the same command goes on"
        )

    def _likely_price(self, question: Question[Any]) -> float:
        completion = _completion_tokens(question)
        return self._cost(1, self._prompt_tokens(question), completion).price

    def _prompt_tokens(self, question: Question[Any]) -> int:
        words = self._introduction + question.text + instruction(self.params, question.schema)
        return tokens(words) + self.params.image_tokens

    def _cost(self, calls: int, prompt_tokens: int, completion_tokens: int) -> Cost:
        params = self.params
        sent, answered = prompt_tokens / 1e6, completion_tokens / 1e6
        price = sent * params.prompt_price + answered * params.completion_price
        return Cost(calls, prompt_tokens, completion_tokens, price)

    def _values(self, failed: Mapping[str, str]) -> dict[str, float]:
        spent = self.spent()
        return {
            "cost": spent.price,
            "tokens": spent.prompt_tokens + spent.completion_tokens,
            "set aside": len(failed),
        }

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next try: as the server asks, or doubling, with chance in it."""
        longest = self.params.longest_wait_seconds
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, FailedError) and error.wait is not None:
            return min(error.wait, longest)
        backoff = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=longest)
        return backoff(state)

    @cached_property
    def _in_rounds(self) -> bool:
        """Whether branches are asked for first; where they are the groups, there is no use."""
        groups = list(prompts.groups(self.tree))
        return self.params.activation == "in_rounds" and prompts.branches(self.tree) != groups

    @cached_property
    def _activation(self) -> Question[Activation]:
        listed = prompts.branches if self._in_rounds else prompts.groups
        return prompts.activation(self.tree, list(listed(self.tree)))

    @cached_property
    def _introduction(self) -> str:
        return prompts.introduction(self.tree)


@dataclass(frozen=True)
class Elected:
    """What several votes on one criterion come to."""

    pole: Pole
    confidence: float
    evidence: str


def majority(votes: Sequence[Verdict]) -> Elected | None:
    """Return what most of the votes say; None where that is silence, or no one thing.

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
    return Elected(pole, confidence, first.evidence)


def name(params: VLMParams) -> str:
    """Return how the agent signs: the version of what it asks, and the model."""
    return f"vlm-{prompts.VERSION} {params.model}"


def criteria_name(tree: Tree) -> str:
    """Return domain, version and hash of a tree: what the ledger sums by."""
    content = json.dumps(tree.model_dump()).encode()
    return f"{tree.domain} {tree.version} {hashlib.sha256(content).hexdigest()[:16]}"


def _completion_tokens(question: Question[Any]) -> int:
    """About how many tokens answer a question."""
    answers = question.schema["required"] if question.topic == "judging" else ()
    return len(answers) * _VERDICT_TOKENS or _OTHER_TOKENS


def _may_succeed(error: BaseException) -> bool:
    return isinstance(error, FailedError) and error.again


def _said(unfit: UnfitError, reply: Reply) -> str:
    text = reply.text if len(reply.text) <= _SHOWN else reply.text[:_SHOWN] + "…"
    return f"{unfit}; it said {text!r}"


def _repair(reply: Reply, wrong: str) -> list[Message]:
    return [
        {"role": "assistant", "content": reply.text},
        {
            "role": "user",
            "content": f"That answer cannot be taken: {wrong}. Answer the same question "
            "again, with JSON that fits.",
        },
    ]
