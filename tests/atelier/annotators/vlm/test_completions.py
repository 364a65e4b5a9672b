import json

import pytest

from atelier.annotators.vlm import completions
from atelier.reading import UnreadableError

MESSAGE = {"role": "assistant", "content": "{}"}


def body(**changes):
    return json.dumps({"choices": [{"message": MESSAGE}], "model": "m"} | changes)


def said(**changes):
    return completions.read(body(choices=[{"message": MESSAGE | changes}]))


@pytest.mark.parametrize(
    "usage",
    [
        {},
        None,
        [],
        "none",
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": -1, "completion_tokens": 0},
        {"prompt_tokens": "12", "completion_tokens": True},
        {"prompt_tokens": float("nan"), "completion_tokens": 1e300},
    ],
)
def test_a_usage_that_cannot_be_used_counts_as_absent(usage):
    read = completions.read(body(usage=usage))

    assert (read.text, read.prompt_tokens, read.completion_tokens) == ("{}", None, None)


def test_a_half_of_a_usage_is_used():
    read = completions.read(body(usage={"prompt_tokens": 7.0, "completion_tokens": None}))

    assert (read.prompt_tokens, read.completion_tokens) == (7, None)


@pytest.mark.parametrize("odd", [None, False, 3, {}, [], ["x"], {"a": 1}])
@pytest.mark.parametrize("field", ["model", "usage", "id", "error", "timings", "object"])
def test_an_odd_field_beside_the_answer_costs_nothing(field, odd):
    assert completions.read(body(**{field: odd})).text == "{}"


@pytest.mark.parametrize("odd", [None, False, 3, {}, [], ["x"]])
@pytest.mark.parametrize("field", ["refusal", "reasoning_content", "tool_calls", "audio"])
def test_an_odd_field_of_the_message_costs_nothing(field, odd):
    read = said(**{field: odd})

    assert (read.text, read.refusal, read.thinking) == ("{}", None, "")


def test_an_odd_choice_behind_the_first_costs_nothing():
    choices = [{"message": MESSAGE, "finish_reason": 7, "logprobs": []}, None, "x"]

    assert completions.read(body(choices=choices)).finish_reason is None


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_in_a_field_of_its_own_is_told_from_the_answer(field):
    read = said(content=None, **{field: "calm"})

    assert (read.text, read.thinking) == ("", "calm")


def test_content_may_be_a_list_of_parts():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "calm"}]},
        {"type": "text", "text": '{"a"'},
        {"type": "text", "text": ": 1}"},
        {"type": "image", "image": None},
        None,
    ]

    read = said(content=parts)

    assert (read.text, read.thinking) == ('{"a": 1}', "calm")


def test_half_of_a_character_beside_the_answer_costs_nothing():
    read = completions.read(
        r'{"choices": [{"message": {"content": "{}", "reasoning": "a \ud83d"}}]}'
    )

    assert (read.text, read.thinking) == ("{}", "a ?")


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "7", "{}", body(choices=[]), body(choices=[{}]), body(choices={}),
     body(choices=[{"message": "hi"}]), "[" * 100_000, "<html>"],
)  # fmt: skip
def test_what_holds_no_message_is_refused(text):
    with pytest.raises(UnreadableError):
        completions.read(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"error": {"code": "insufficient_quota"}}', "insufficient_quota"),
        ('{"error": {"type": "insufficient_quota", "code": 429}}', "insufficient_quota"),
        ('{"code": "x"}', "x"),
        ('{"error": "slow down"}', None),
        ("<html>", None),
        ("[]", None),
    ],
)
def test_the_code_of_an_error(text, code):
    assert completions.error_code(text) == code
