"""Chat completions as servers send them: the answer is required, all other fields are not.

Servers differ in what stands beside the answer (usage, thinking, the model's name), and in its
type. A field that cannot be used counts as absent, so that it never costs a paid answer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atelier.reading import UnreadableError

_MOST_TOKENS = 10**9
_THINKING = ("reasoning_content", "reasoning", "thinking")  # by llama.cpp and others, vLLM, …


@dataclass(frozen=True)
class Completion:
    """What a server answered.

    Attributes:
        text: The words of the answer; empty if there are none.
        thinking: What the model wrote before the answer, in a field of its own.
        refusal: The words of a refusal.
        finish_reason: Why the answer ends.
        prompt_tokens: As the server counts, > 0; None if it does not.
        completion_tokens: As ``prompt_tokens``.
        model: The model's name as the server gives it.
    """

    text: str
    thinking: str
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str | None


def read(body: str) -> Completion:
    """Read the body of a response.

    Raises:
        UnreadableError: It holds no message of a model.
    """
    values = _values(body)
    choices = values.get("choices") if isinstance(values, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise UnreadableError("choices[0].message is absent")
    content, usage = message.get("content"), values.get("usage")
    return Completion(
        text=_words(content, "text"),
        thinking=_thinking(message) or _words(content, "thinking"),
        refusal=_text(message.get("refusal")) or _text(_words(content, "refusal")),
        finish_reason=_text(choice.get("finish_reason")),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        model=_text(values.get("model")),
    )


def error_code(body: str) -> str | None:
    """Return the code or the type of the error in a body, if it has one."""
    try:
        values = _values(body)
    except UnreadableError:
        return None
    error = values.get("error", values) if isinstance(values, dict) else None
    if not isinstance(error, dict):
        return None
    return _text(error.get("code")) or _text(error.get("type"))


def _values(body: str) -> Any:
    try:
        return json.loads(body.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        raise UnreadableError("it is not JSON") from None


def _words(content: Any, kind: str) -> str:
    """The words of a message's content, a text or a list of parts of several kinds."""
    if isinstance(content, str):
        return _whole(content) if kind == "text" else ""
    if not isinstance(content, list):
        return ""
    parts = [one.get(kind) for one in content if isinstance(one, dict)]
    return "".join(_words(one, "text") for one in parts)


def _thinking(message: Mapping[str, Any]) -> str:
    return next((text for text in map(_text, map(message.get, _THINKING)) if text), "")


def _text(value: Any) -> str | None:
    return _whole(value) if isinstance(value, str) and value.strip() else None


def _whole(text: str) -> str:
    """The text without halves of characters, which no file can hold."""
    return text.encode(errors="replace").decode()


def _count(usage: Any, name: str) -> int | None:
    """A number of tokens; no request and no answer has none."""
    value = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < _MOST_TOKENS else None
