"""HTTP client of a server with OpenAI's chat completions: one request, and its failures.

Nothing is retried here, and nothing is logged. The key comes from the environment, goes into
the request's header, and is taken out of every text that comes back.
"""

import asyncio
import email.utils
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from atelier import connections
from atelier.annotators.vlm import completions
from atelier.annotators.vlm.completions import Completion
from atelier.config.annotation import VLMParams
from atelier.errors import AnnotationError, ParamsError
from atelier.reading import UnreadableError

if TYPE_CHECKING:
    import httpx2

Message = dict[str, Any]
_CHARACTERS_PER_TOKEN = 4  # of English prose, about
_SHOWN = 500  # characters of a server's words that an error repeats
_PASSING = frozenset({408, 409, 425, 429})  # and all from 500: the same request may succeed
_REFUSED = frozenset({400, 422})  # by a server that does not know a field of the request
_HOPELESS = frozenset({401, 402, 403, 404})  # no picture will ever be answered
_ONLY_THINKING = (
    "all that the model wrote is its thinking, {} characters in a field of its own "
    "(reasoning_content); turn thinking off, or raise annotate.vlm.max_tokens"
)
_VERSION = re.compile(r"[-@:](latest|\d{4}-\d\d-\d\d|\d{8}|\d{3,4})$")
_CONNECT_SECONDS = 10.0  # for the connection alone, at most
_KEY = re.compile(r"[\x21-\x7e]+")


class FailedError(Exception):
    """A request got no answer; the text is the reason.

    Attributes:
        again: Whether the same request may be answered another time.
        wait: Seconds that the server asks to wait, if it does.
        away: Whether the server did not answer at all: no connection, no answer in time, none
            at present. That may be the server's fault or the picture's.
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
        model: The model as the server names it; None if it does not.
    """

    text: str
    unfit: str | None
    prompt_tokens: int
    completion_tokens: int
    model: str | None


class Client:
    """One model at one server.

    Attributes:
        free: Hold it while a request is on its way; ``concurrency`` may hold it at once.

    Raises:
        ParamsError: The environment variable that should hold the key is not set or holds no
            key, or a proxy or a certificate of the environment cannot be used.
    """

    def __init__(self, params: VLMParams) -> None:
        import httpx2

        self._params = params
        self._key = _key(params.key_variable)
        self._answered = False
        self.free = asyncio.Semaphore(params.concurrency)
        connections.refuse_environment()
        seconds = params.timeout_seconds
        self._client = httpx2.AsyncClient(
            base_url=params.base_url,
            headers={
                "Authorization": f"Bearer {self._key or 'none'}",
                "Content-Type": "application/json",
            },
            timeout=httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
            limits=httpx2.Limits(max_connections=params.concurrency),
            follow_redirects=True,
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

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
            completion = completions.read(body)
        except UnreadableError as error:
            raise FailedError(
                f"the server sent no chat completion ({error}): {self._clean(body)}", again=True
            ) from None
        self._answered = True
        return self._reply(completion, request)

    async def _send(self, body: bytes) -> str:
        import httpx2

        seconds = self._params.timeout_seconds
        try:
            # The client's own limit is for each read; a server that trickles would outlast it.
            async with asyncio.timeout(seconds):
                response = await self._client.post("chat/completions", content=body)
        except httpx2.ConnectTimeout as error:
            limit = min(seconds, _CONNECT_SECONDS)
            raise self._unconnected(error, f"no connection within {limit:g} seconds") from None
        except (httpx2.TimeoutException, TimeoutError):
            raise FailedError(
                f"no answer within {seconds:g} seconds (annotate.vlm.timeout_seconds)",
                again=True,
                away=True,
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, ExceptionGroup) as e:
            cause = self._clean(connections.cause(e))
            raise self._unconnected(e, f"the connection failed: {cause}") from None
        if response.is_error:
            raise self._failure(response)
        return _text(response)

    def _unconnected(self, error: Exception, reason: str) -> FailedError:
        advice = connections.advice(self._params.base_url, error)
        return FailedError(reason + advice, again=True, away=True)

    def _failure(self, response: "httpx2.Response") -> Exception:
        """What a status of 400 or more means."""
        status, params = response.status_code, self._params
        spent = (
            status == 429 and completions.error_code(_text(response)) == "insufficient_quota"
        )
        if status in _HOPELESS or spent:
            # The server's words are left out: of a wrong key they often show a part.
            return AnnotationError(
                f"{params.base_url} answers {status} for model {params.model!r}: "
                f"{_CURES[402 if spent else status].format(variable=params.key_variable)}"
            )
        words = self._clean(_text(response))
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
            wait=_retry_after(response.headers),
            away=passing,
        )

    def _reply(self, completion: Completion, request: Request) -> Reply:
        text, refusal, model = (
            None if words is None else self._without_key(words)
            for words in (completion.text, completion.refusal, completion.model)
        )
        assert text is not None
        sent, answered = completion.prompt_tokens, completion.completion_tokens
        return Reply(
            text or refusal or "",
            self._unfit(completion, text, refusal),
            # By the length of the texts, where the server does not count.
            request.tokens if sent is None else sent,
            tokens(text) if answered is None else answered,
            model,
        )

    def _unfit(self, completion: Completion, text: str, refusal: str | None) -> str | None:
        """Why a reply cannot be an answer, whatever its words are."""
        if refusal or completion.finish_reason == "content_filter":
            return f"the model refused: {refusal or 'content filter'}"
        only = completion.thinking and not text.strip()
        thinking = f"; {_ONLY_THINKING.format(len(completion.thinking))}" if only else ""
        if completion.finish_reason == "length":
            return f"cut off at annotate.vlm.max_tokens, {self._params.max_tokens}{thinking}"
        return None if text.strip() else f"the answer is empty{thinking}"

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


def _text(response: "httpx2.Response") -> str:
    """The body; JSON is UTF-8, whatever a header says."""
    return response.content.decode(errors="replace")


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ParamsError(
            f"annotate.vlm.key_variable names {variable}, which is not set in the environment; "
            f"`export {variable}=…`, or null for a server that needs no key"
        )
    if not _KEY.fullmatch(key):
        # Not shown, and not sent: a header cannot hold it.
        raise ParamsError(
            f"the environment variable {variable} (annotate.vlm.key_variable) holds a line "
            "break, a blank or a letter with an accent, which no key has; copy the key again"
        )
    return key


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of ``Retry-After``, a number or a date; one that cannot be read is none."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _until(date: str) -> float:
    """Seconds until a date of HTTP; NaN if it is none."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return math.nan


def same_model(asked: str, answered: str) -> bool:
    """Return whether two names are of one model, ignoring folders, a file's suffix and a date.

    Servers answer as ``/models/NAME`` or ``NAME.gguf``, and as ``NAME-2024-08-06`` where the
    name stands for the latest version.
    """
    first, second = (name.lower().removesuffix(".gguf") for name in (asked, answered))
    dated = _VERSION.sub("", second)
    return any(
        one == first or one.endswith(f"/{first}") or first.endswith(f"/{one}")
        for one in (second, dated)
    )
