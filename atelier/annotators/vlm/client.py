"""A server that speaks OpenAI's protocol: one request, and what its failures mean.

Nothing is retried here, and nothing is logged. The key comes from the environment, goes into
the request's header, and is taken out of every text that comes back.
"""

import asyncio
import email.utils
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from atelier.config.annotation import VLMParams
from atelier.errors import AnnotationError, ParamsError

if TYPE_CHECKING:
    import openai

Message = dict[str, Any]
_CHARACTERS_PER_TOKEN = 4  # of English prose, about
_SHOWN = 500  # characters of a server's words that an error repeats
_PASSING = frozenset({408, 409, 425, 429})  # and all from 500: the same request may succeed
_REFUSED = frozenset({400, 422})  # by a server that does not know a field of the request
_NOBODY = frozenset({401, 402, 403, 404})  # no picture will ever be answered


class FailedError(Exception):
    """A question was not answered; its text is the reason.

    Attributes:
        again: Whether the same request may be answered another time.
        wait: Seconds that the server asks to be left alone, if it says so.
        away: Whether nobody answered: no connection, no answer in time, none at present. That
            may be the server's fault or the picture's.
    """

    def __init__(
        self, reason: str, *, again: bool, wait: float | None = None, away: bool = False
    ) -> None:
        super().__init__(reason)
        self.again, self.wait, self.away = again, wait, away


@dataclass(frozen=True)
class Request:
    """One request, made before it has its turn, so that no turn is spent on making it.

    Attributes:
        body: What is sent.
        tokens: About what the server counts for it.
    """

    body: bytes
    tokens: int


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
        text: Its words.
        unfit: Why they cannot be an answer, whatever they are: refused, cut off, empty.
        cut: Whether ``max_tokens`` ended them.
        model: The model as the server names it; None if it does not.
    """

    text: str
    unfit: str | None
    cut: bool
    prompt_tokens: int
    completion_tokens: int
    model: str | None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    model: Any = None


class Client:
    """One model at one server.

    Attributes:
        free: To be held while a request is on its way; ``concurrency`` may hold it.

    Raises:
        ParamsError: The environment variable that should hold the key is not set.
    """

    def __init__(self, params: VLMParams) -> None:
        import openai

        self._params = params
        self._key = _key(params.key_variable)
        self._answered = False
        self.free = asyncio.Semaphore(params.concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=params.base_url,
            api_key=self._key or "none",
            timeout=params.timeout_seconds,
            max_retries=0,
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()

    def request(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Request:
        """Return what asks for an answer to ``messages`` that fits ``schema``."""
        params = self._params
        values: dict[str, Any] = {
            "model": params.model,
            "messages": messages,
            params.max_tokens_name: params.max_tokens,
            **_format(params, schema),
        }
        if params.temperature is not None:
            values["temperature"] = params.temperature
        prompt = tokens(_texts(messages)) + params.image_tokens
        return Request(json.dumps(values, ensure_ascii=False).encode(), prompt)

    async def complete(self, request: Request) -> Reply:
        """Send one request.

        Raises:
            FailedError: There is no answer.
            AnnotationError: There will never be one: no such model, no permission, no money.
        """
        body = await self._send(request.body)
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            raise FailedError(
                f"the server sent no chat completion: {self._clean(body)}", again=True
            ) from None
        self._answered = True
        return self._reply(completion, request)

    async def _send(self, body: bytes) -> str:
        import openai

        seconds = self._params.timeout_seconds
        try:
            # The client's own limit is for each read; a server that trickles would outlast it.
            async with asyncio.timeout(seconds):
                # Its method for chats would walk through picture and schema once more.
                return await self._client.post("/chat/completions", content=body, cast_to=str)
        except (openai.APITimeoutError, TimeoutError):
            raise FailedError(
                f"no answer within {seconds:g} seconds (annotate.vlm.timeout_seconds)",
                again=True,
                away=True,
            ) from None
        except openai.APIStatusError as error:
            raise self._failure(error) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            raise FailedError(
                f"the connection failed ({cause})", again=True, away=True
            ) from None

    def _failure(self, error: "openai.APIStatusError") -> Exception:
        """What a status other than 200 means."""
        status, params = error.status_code, self._params
        spent = status == 429 and error.code == "insufficient_quota"
        if status in _NOBODY or spent:
            # The server's words are left out: of a wrong key they often show a part.
            return AnnotationError(
                f"{params.base_url} answers {status} for model {params.model!r}: "
                f"{_CURES[402 if spent else status].format(variable=params.key_variable)}"
            )
        words = self._clean(error.response.text)
        field = _FIELD.search(words)
        # Once it has answered, it is this picture that it refuses.
        if status in _REFUSED and field and not self._answered:
            return AnnotationError(
                f"{params.base_url} refuses what it was sent ({status}): {words}\n"
                f"{_FIELDS[field[1]]}"
            )
        passing = status in _PASSING or status >= 500
        return FailedError(
            f"the server answered {status}: {words}",
            again=passing,
            wait=_retry_after(error.response.headers),
            away=passing,
        )

    def _reply(self, completion: _Completion, request: Request) -> Reply:
        choice = completion.choices[0]
        text = self._without_key(choice.message.content or "")
        refusal = self._without_key(choice.message.refusal or "")
        cut = choice.finish_reason == "length"
        unfit = None
        if refusal or choice.finish_reason == "content_filter":
            unfit = f"the model refused: {refusal or 'content filter'}"
        elif cut:
            unfit = f"cut off at annotate.vlm.max_tokens, {self._params.max_tokens}"
        elif not text.strip():
            unfit = "the answer is empty"
        # By the length of the texts, where the server does not count.
        usage = completion.usage or _Usage(
            prompt_tokens=request.tokens, completion_tokens=tokens(text)
        )
        model = completion.model if isinstance(completion.model, str) else None
        return Reply(
            text or refusal, unfit, cut, usage.prompt_tokens, usage.completion_tokens, model
        )

    def _clean(self, text: str) -> str:
        words = " ".join(self._without_key(text).split())
        return words if len(words) <= _SHOWN else words[:_SHOWN] + "…"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


_CURES = {
    401: "the key is not accepted; set {variable} in the environment, and see that "
    "annotate.vlm.key_variable names it",
    402: "the account has no credit; top it up and run again, answers so far are kept",
    403: "this key may not use it; set {variable} to one that may",
    404: "there is no such model or address; see annotate.vlm.model and base_url, which "
    "usually ends in /v1",
}


_LADDER = (
    "See annotate.vlm.answers: where json_schema is not known, try json_schema_loose, then "
    "json_object_schema, json_object, plain."
)
_FIELDS = {  # that a server may not know, each with what cures it
    "max_completion_tokens": "See annotate.vlm.max_tokens_name; others call it max_tokens.",
    "max_tokens": "See annotate.vlm.max_tokens, and max_tokens_name: newer models of OpenAI "
    "call it max_completion_tokens.",
    "temperature": "See annotate.vlm.temperature; null sends none.",
    "strict": _LADDER,
    "json_schema": _LADDER,
    "response_format": _LADDER,
}
_FIELD = re.compile(rf"\b({'|'.join(_FIELDS)})\b")


def tokens(text: str) -> int:
    """Return about how many tokens ``text`` has."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _texts(messages: Sequence[Message]) -> str:
    """What is said in words: pictures are counted otherwise."""
    said = []
    for message in messages:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        said += [part.get("text", "") for part in parts]
    return "\n".join(said)


_SCHEMATIC = frozenset({"json_schema", "json_schema_loose", "json_object_schema"})


def _format(params: VLMParams, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a request by which the server is held to JSON."""
    if params.answers == "json_object_schema":
        return {"response_format": {"type": "json_object", "schema": schema}}
    if params.answers in _SCHEMATIC:
        form = {"name": "answer", "schema": schema}
        strict = {"strict": True} if params.answers == "json_schema" else {}
        return {"response_format": {"type": "json_schema", "json_schema": form | strict}}
    if params.answers == "json_object":
        return {"response_format": {"type": "json_object"}}
    return {}


def instruction(params: VLMParams, schema: Mapping[str, Any]) -> str:
    """Return what is added to a question's words where the server is not given the schema."""
    if params.answers in _SCHEMATIC:
        return ""
    form = json.dumps(schema, ensure_ascii=False)
    return f"\n\nAnswer with one JSON object, and nothing else, that fits this schema: {form}"


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ParamsError(
            f"annotate.vlm.key_variable names {variable}, which is not set in the environment; "
            f"`export {variable}=…`, or null for a server that needs no key"
        )
    return key


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of ``Retry-After``, which may be a number or a date."""
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        date = email.utils.parsedate_tz(text)
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
