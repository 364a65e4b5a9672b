import contextlib
import json

import pytest

from atelier.annotators.vlm.wrappers import unwrapped
from atelier.reading import UnreadableError

ANSWER = '{"kind": {"medium": ["oil {on} canvas"]}, "matters": ["edges", "a } b"]}'
DRAFT = '{"kind": {}, "matters": ["light"]}'


@pytest.mark.parametrize(
    "wrapped",
    [
        ANSWER,
        f"\n  {ANSWER}\n",
        f"```json\n{ANSWER}\n```",
        f"```\n{ANSWER}```",
        f"```JSON\r\n{ANSWER}\r\n```\r\n",
        f"Here is the JSON:\n\n```json\n{ANSWER}\n```\nTell me if you need more.",
        f"Sure! {ANSWER} I hope this helps {{smile}}.",
        f"The set {{edges}} matters, hence {ANSWER}",
        f"<think>Edges? {DRAFT} Hm, no.</think>\n\n{ANSWER}",
        f"The edges look calm. {DRAFT}\n</think>\n{ANSWER}",  # the template opened it
        f"<think>\n</think>{ANSWER}",
        f"<Thinking>calm</Thinking><answer>{ANSWER}</answer>",
        f"<seed:think>calm</seed:think>{ANSWER}",
        f"◁think▷calm◁/think▷{ANSWER}",
        f"[THINK]calm[/THINK]```json\n{ANSWER}\n```",
        f"<|channel|>analysis<|message|>calm<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{ANSWER}",
        f"<|begin_of_box|>{ANSWER}<|end_of_box|>",
        f"{ANSWER}\n{ANSWER}",  # said twice, it is still one
    ],
)
def test_the_one_object_is_taken_out_of_its_wrapper(wrapped):
    assert json.loads(unwrapped(wrapped)) == json.loads(ANSWER)


def test_a_tag_inside_an_answer_is_a_part_of_it():
    answer = json.dumps({"caption": "a sign that reads <think> and </think>"})

    assert unwrapped(answer) == answer


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{ANSWER} or {DRAFT}", "not one JSON object, but 2"),
        (f"<think>calm edges, {DRAFT}", "ends in its thinking"),
        ("<|channel|>analysis<|message|>calm", "ends in its thinking"),
    ],
)
def test_what_holds_no_one_answer_is_refused(text, says):
    with pytest.raises(UnreadableError, match=says):
        unwrapped(text)


@pytest.mark.parametrize(
    "text",
    [
        "I see a picture, and I like it.",
        ANSWER[:40],
        f"Here it is: {ANSWER[:40]}",
        '{"a/b": {"evidence": "x", "pole": "positive", "confidence": 0.5}, "c/d": {"evid',
        f"<think>calm</think>{ANSWER[:-1]}",
        f"<think>{ANSWER}</think>",
        "",
    ],
)
def test_what_is_torn_or_no_json_stays_so(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever json finds first
        json.loads(unwrapped(text))


def test_a_list_that_is_the_whole_answer_is_not_opened():
    assert unwrapped(f"[{ANSWER}]") == f"[{ANSWER}]"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["{", "{ ", '{"', '{"a":', "{}", "<think>", "<", "```\n", "[", "</think>"]
)
def test_long_rubbish_takes_no_time(piece):
    text = piece * (200_000 // len(piece))
    with contextlib.suppress(UnreadableError):
        assert len(unwrapped(text)) <= len(text)
