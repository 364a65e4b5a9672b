"""Answers in a wrapper: the one JSON object inside thinking, prose or code fences."""

import json
import re

from atelier.reading import UnreadableError

_WORDS = "(?:think|thinking|thoughts?|reason|reasoning|reflection|analysis|scratchpad)"
# How models open and close their thinking: tags (also with a prefix, as seed:think), Kimi,
# Magistral, and the channels of gpt-oss.
_OPENED = re.compile(
    rf"<(?:\w+:)?{_WORDS}>|◁think▷|\[think\]|<\|begin_of_thought\|>|"
    r"<\|channel\|>analysis<\|message\|>",
    re.IGNORECASE,
)
_CLOSED = re.compile(
    rf"</(?:\w+:)?{_WORDS}>|◁/think▷|\[/think\]|<\|end_of_thought\|>|"
    r"<\|channel\|>final(?: json)?<\|message\|>",
    re.IGNORECASE,
)
_OBJECT = re.compile(r'\{\s*["}]')  # a brace in prose is seldom followed by a quote
_DECODER = json.JSONDecoder()


def unwrapped(answer: str) -> str:
    """Return the JSON text in an answer; what surrounds it is dropped.

    An answer that is JSON as a whole is returned as it is. Of any other, the one object in it
    is: after the thinking, with prose and fences before and behind. The text that is returned
    need not be JSON; the parser reports what is wrong with it.

    Raises:
        UnreadableError: The answer ends in the thinking, or holds several different objects.
    """
    text = answer.strip()
    if _end(text, 0) == len(text):
        return text
    text = _without_thinking(text)
    found: list[str] = []
    place = 0
    while start := _OBJECT.search(text, place):
        end = _end(text, start.start())
        if end is None:
            return text[start.start() :]
        found.append(text[start.start() : end])
        place = end
    if len(set(found)) > 1:
        raise UnreadableError(f"not one JSON object, but {len(found)}")
    return found[0] if found else text


def _without_thinking(text: str) -> str:
    """Return what follows the last end of thinking; all, if there is no thinking."""
    closed = list(_CLOSED.finditer(text))
    if closed:
        return text[closed[-1].end() :].strip()
    opened, brace = _OPENED.search(text), text.find("{")
    if opened and not 0 <= brace < opened.start():
        raise UnreadableError(
            "not JSON, it ends in its thinking; a larger annotate.vlm.max_tokens, or a model "
            "that does not think, gives an answer"
        )
    return text


def _end(text: str, start: int) -> int | None:
    """Return where the JSON value that begins at ``start`` ends; None if there is none."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None
