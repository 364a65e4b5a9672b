"""The agent: asks a vision-language model about pictures, a few prompts for each of them.

``walk`` says what is asked, ``prompts`` how it is worded and how an answer is read. Every
answer goes into the response cache first. A prompt without a fit answer is tried again with
backoff, an unfit answer after one round of repair; in the end the picture is set aside with
what the model answered.
"""

import asyncio
import base64
import dataclasses
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tenacity
from PIL import Image

from atelier import images
from atelier.annotators.vlm import prompts
from atelier.annotators.vlm.client import (
    Client,
    FailedError,
    Message,
    Reply,
    Request,
    instruction,
    same_model,
)
from atelier.annotators.vlm.cost import Cost, Prices
from atelier.annotators.vlm.prompts import Prompt, UnfitError
from atelier.annotators.vlm.response_cache import Response, ResponseCache, digest
from atelier.annotators.vlm.walk import (
    Asked,
    Asking,
    ComparisonRequest,
    ComparisonResult,
    ProposalRequest,
    ProposalResult,
    Result,
    VLMRequest,
    VLMResult,
    Walker,
)
from atelier.config.annotation import VLMParams
from atelier.criteria.tree import Tree
from atelier.errors import AnnotationError, DiskError, ImageError
from atelier.images import Size
from atelier.reporting import Report

_JPEG_QUALITY = 95
_FIRST_WAIT = 0.5  # seconds, at most, before the second try; it doubles
_SHOWN = 500  # characters of an unfit answer that the quarantine list repeats
_HOPELESS = 8  # pictures in a row, at least, without a usable answer end the run
_POLL = 0.05  # seconds between two looks at what is spent, near the cap
_READ_AHEAD = 4  # pictures, at least, that are ready while others wait for the server


class _HaltedError(Exception):
    """The run ends: requests on their way are finished, and no other is sent."""


class _MissingError(Exception):
    """The response cache lacks an answer."""


class Agent:
    """A model, the criteria it judges by, and the cache of its responses.

    Args:
        tree: The criteria.
        params: Which model, where, and how it is asked.
        cache: Where its responses are kept.
        largest_pixels: A picture of more pixels is refused.
        sizes: Those that pictures are cut to; None: the middle square.
    """

    def __init__(
        self,
        tree: Tree,
        params: VLMParams,
        cache: ResponseCache,
        *,
        largest_pixels: int,
        sizes: Sequence[Size] | None = None,
    ) -> None:
        self.params, self.cache = params, cache
        self.walker = Walker(tree, params)
        self._introduction = prompts.introduction(tree)
        self._prices = Prices(self._introduction, params)
        self._largest_pixels, self._sizes = largest_pixels, sizes
        self._halt: AnnotationError | DiskError | None = None
        self._underway: list[float] = []  # likely prices of requests on their way
        self._fruitless = 0  # pictures in a row without a usable answer
        self._away: list[Asked] = []  # the server answered nothing while these were asked
        self._by_others = 0  # answers of another model than was asked for
        self._answered_at = -math.inf  # time.monotonic() of the latest answer

    def consult(self, requests: Sequence[Asked], report: Report) -> dict[str, str]:
        """Ask about all pictures for which the cache lacks an answer; ``recall`` reads them.

        Args:
            requests: Each picture once.
            report: Called with the pictures done, cost, tokens and pictures set aside.

        Returns:
            Why a picture could not be judged, by its hash.

        Raises:
            AnnotationError: The server answers no request, or the cost cap is reached; answers
                to requests on their way are kept.
            DiskError: The cache cannot be written.
            ParamsError: The key is absent, or the environment does not allow a connection.
        """
        return asyncio.run(self._consult(requests, report))

    def recall(self, request: VLMRequest) -> VLMResult | None:
        """Return what the cache holds of a picture; None if answers are missing."""
        retraced = self._retrace(request)
        if retraced is None:
            return None
        assert isinstance(retraced[0], VLMResult)
        return retraced[0]

    def recall_comparison(self, request: ComparisonRequest) -> ComparisonResult | None:
        """Return what the cache holds of two pictures; None if answers are missing."""
        retraced = self._retrace(request)
        if retraced is None:
            return None
        assert isinstance(retraced[0], ComparisonResult)
        return retraced[0]

    def recall_proposal(self, request: ProposalRequest) -> Tree | None:
        """Return the criteria that the cache holds; None if the answer is missing."""
        retraced = self._retrace(request)
        if retraced is None:
            return None
        assert isinstance(retraced[0], ProposalResult)
        return retraced[0].proposed

    def cost(self, request: Asked) -> Cost | None:
        """Return about what all prompts about a picture cost; None if answers are missing."""
        retraced = self._retrace(request)
        return None if retraced is None else self._prices.of_prompts(retraced[1])

    def spent(self) -> Cost:
        """Return what all answers by these criteria cost, in this and former runs."""
        return self._prices.of_tokens(0, self.cache.prompt_tokens, self.cache.completion_tokens)

    def most(self, *, caption: bool) -> Cost:
        """Return about what a picture costs in which every criterion matters."""
        return self._prices.of_prompts(self.walker.all_prompts(caption=caption))

    def schema_tokens(self) -> int:
        """Return about how many tokens the schemas of ``most`` are, for servers that count."""
        return self._prices.schema_tokens(self.walker.all_prompts(caption=False))

    def _retrace(self, request: Asked) -> tuple[Result, list[Prompt[Any]]] | None:
        """Return what the cache holds of a request, and the prompts that it answers."""
        walk, known = self.walker.walk(request), self.cache.of(request.image)
        asked: list[Prompt[Any]] = []
        answered_by: Counter[str] = Counter()
        try:
            asking = next(walk)
            while True:
                asked.append(asking[0])
                value, response = self._known(asking, known)
                if response.answered_by is not None:
                    answered_by[response.answered_by] += 1
                asking = walk.send(value)
        except StopIteration as end:
            return dataclasses.replace(end.value, answered_by=answered_by), asked
        except _MissingError:
            return None

    async def _consult(self, requests: Sequence[Asked], report: Report) -> dict[str, str]:
        self._halt, self._fruitless, self._away = None, 0, []
        left = [request for request in requests if self._retrace(request) is None]
        failed: dict[str, str] = {}
        done = len(requests) - len(left)
        report(done, self._values(failed))

        def settled() -> None:
            nonlocal done
            done += 1
            report(done, self._values(failed))

        async with Client(self.params) as client:
            await self._work_off(left, client, failed, settled)
            if self._away and self._halt is None:
                # The server may be back by now; an outage loses no picture.
                again, self._away = self._away, []
                await self._work_off(again, client, failed, lambda: None)
        if self._halt is not None:
            raise self._halt
        if self._away:
            raise self._server_is_away(failed)
        return failed

    async def _work_off(
        self,
        requests: Sequence[Asked],
        client: Client,
        failed: dict[str, str],
        settled: Callable[[], None],
    ) -> None:
        queue = iter(requests)
        workers = [
            self._work(queue, client, failed, settled)
            for _ in range(min(len(requests), self._at_once()))
        ]
        await asyncio.gather(*workers)

    def _at_once(self) -> int:
        """Pictures in hand: a free turn at the server should never wait for a picture."""
        concurrency = self.params.concurrency
        return concurrency + max(_READ_AHEAD, concurrency // 2)

    async def _work(
        self,
        queue: Iterator[Asked],
        client: Client,
        failed: dict[str, str],
        settled: Callable[[], None],
    ) -> None:
        """Take pictures off the queue until it is empty or the run ends."""
        for request in queue:
            try:
                await self._ask(request, client)
                failed.pop(request.image, None)
                self._fruitless = 0
            except _HaltedError:
                return
            except (AnnotationError, DiskError) as error:
                self._halt = self._halt or error
                return
            except (FailedError, ImageError) as failure:
                failed[request.image] = str(failure)
                if isinstance(failure, FailedError) and failure.away:
                    self._away.append(request)
                self._count_fruitless(str(failure))
            settled()

    async def _ask(self, request: Asked, client: Client) -> None:
        """Walk with one picture, asking what the cache does not know."""
        known = self.cache.of(request.image)
        shown = await asyncio.to_thread(self._shown, request)
        walk = self.walker.walk(request)
        try:
            asking = next(walk)
            while True:
                try:
                    value, _ = self._known(asking, known)
                except _MissingError:
                    value = await self._answer(asking, request, shown, client)
                asking = walk.send(value)
        except StopIteration:
            return

    def _known(self, asking: Asking, known: Mapping[str, Response]) -> tuple[Any, Response]:
        """Return what a cached response says, and the response."""
        prompt, vote = asking
        response = known.get(self._key(prompt, vote))
        if response is None:
            raise _MissingError
        try:
            return prompts.read(prompt, response.text), response
        except UnfitError:  # it was fit once: reading has become stricter since
            raise _MissingError from None

    async def _answer(
        self, asking: Asking, request: Asked, shown: Sequence[str], client: Client
    ) -> Any:
        """Ask until there is a fit answer, ``tries`` times at most, with backoff."""
        prompt, _ = asking
        began = time.monotonic()
        tries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_may_succeed),
            stop=tenacity.stop_after_attempt(self.params.tries),
            wait=self._wait,
            reraise=True,
        )
        try:
            return await tries(self._try, asking, request, shown, client)
        except FailedError as failure:
            raise FailedError(
                f"no usable answer to {prompt.topic!r} by {self.params.model}: {failure}",
                again=False,
                # Where others were answered meanwhile, this picture is what fails.
                away=failure.away and self._answered_at < began,
            ) from None

    async def _try(
        self, asking: Asking, request: Asked, shown: Sequence[str], client: Client
    ) -> Any:
        """Ask once, and once more for a repair if the answer is whole but does not fit."""
        prompt = asking[0]
        messages = self._messages(prompt, shown)
        reply = await self._send(client.request(messages, prompt.schema), asking, client)
        try:
            return self._take(reply, asking, request)
        except UnfitError as unfit:
            if reply.unfit is not None:
                raise FailedError(_described(unfit, reply), again=True) from None
            wrong = str(unfit)
        messages += _repair(reply, wrong)
        repaired = await self._send(client.request(messages, prompt.schema), asking, client)
        try:
            return self._take(repaired, asking, request)
        except UnfitError as unfit:
            raise FailedError(_described(unfit, repaired), again=True) from None

    async def _send(self, request: Request, asking: Asking, client: Client) -> Reply:
        """Wait for a turn, then send."""
        likely = self._prices.of_prompts([asking[0]]).price
        async with client.free:
            await self._afford(likely)
            if self._halt is not None:
                raise _HaltedError
            self._underway.append(likely)
            try:
                reply = await client.complete(request)
                self._answered_at = time.monotonic()
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

    def _take(self, reply: Reply, asking: Asking, request: Asked) -> Any:
        """Cache an answer, then read it.

        Raises:
            UnfitError: It cannot be used.
        """
        prompt, vote = asking
        if reply.model is not None and not same_model(self.params.model, reply.model):
            self._by_others += 1
        unfit = None if reply.unfit is None else UnfitError(reply.unfit)
        value = None
        if unfit is None:
            try:
                value = prompts.read(prompt, reply.text)
            except UnfitError as error:
                unfit = error
        self.cache.add(
            Response(
                image=request.image,
                asked=self._key(prompt, vote),
                topic=prompt.topic,
                criteria=self.cache.criteria,
                text=reply.text,
                unfit=None if unfit is None else str(unfit),
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                answered_by=reply.model,
            )
        )
        if unfit is not None:
            raise unfit
        return value

    def _key(self, prompt: Prompt[Any], vote: int) -> str:
        """Return the hash of all that an answer depends on, apart from picture and chance."""
        params = self.params
        return digest(
            self._introduction,
            prompt.text,
            json.dumps(prompt.schema),
            params.model,
            params.answers,
            repr((params.pixels, params.temperature, vote)),
            *([] if self._sizes is None else [repr(self._sizes)]),
        )

    def _messages(self, prompt: Prompt[Any], shown: Sequence[str]) -> list[Message]:
        words = prompt.text + instruction(self.params, prompt.schema)
        content = [
            *({"type": "image_url", "image_url": {"url": one}} for one in shown),
            {"type": "text", "text": words},
        ]
        return [
            {"role": "system", "content": self._introduction},
            {"role": "user", "content": content},
        ]

    def _shown(self, request: Asked) -> list[str]:
        """Return the pictures of a request as data URLs."""
        return [self._picture(file) for file in request.files]

    def _picture(self, path: Path) -> str:
        """Return the data URL of what is learned, the middle square or a bucket's crop."""
        image = images.read(path, self._largest_pixels)
        file = io.BytesIO()
        seen = Image.fromarray(images.framed(image, self.params.pixels, self._sizes))
        seen.save(file, "JPEG", quality=_JPEG_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

    def _count_fruitless(self, reason: str) -> None:
        """End the run where nothing succeeds: setting all pictures aside helps no one."""
        self._fruitless += 1
        if self._fruitless >= max(_HOPELESS, self.params.concurrency) and self._halt is None:
            self._halt = AnnotationError(
                f"{self._fruitless} pictures in a row got no usable answer from "
                f"{self.params.base_url}; the last one: {reason}\n"
                "See annotate.vlm (base_url, model, answers, max_tokens); what was answered is "
                "kept, and the same command goes on."
            )

    def _server_is_away(self, failed: Mapping[str, str]) -> AnnotationError:
        first = self._away[0]
        return AnnotationError(
            f"{len(self._away)} pictures got no answer from {self.params.base_url}, and "
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

    def _values(self, failed: Mapping[str, str]) -> dict[str, float]:
        spent = self.spent()
        others = {"by another model": self._by_others} if self._by_others else {}
        return {
            **others,
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


def criteria_name(tree: Tree) -> str:
    """Return the name of a tree by which the cache sums tokens."""
    return tree.identity


def _may_succeed(error: BaseException) -> bool:
    return isinstance(error, FailedError) and error.again


def _described(unfit: UnfitError, reply: Reply) -> str:
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
