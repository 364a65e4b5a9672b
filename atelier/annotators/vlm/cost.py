"""Tokens and price of prompts: estimates before they are sent, and what was spent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atelier.annotators.vlm.client import instruction, tokens
from atelier.annotators.vlm.prompts import Prompt
from atelier.config.annotation import VLMParams

_VERDICT_TOKENS = 60  # of one criterion's verdict, about; for estimates
_BY_CRITERION = frozenset({"judging", "comparing"})
_OTHER_TOKENS = 200  # of an activation or a caption, about; for estimates


@dataclass(frozen=True)
class Cost:
    """Calls and tokens, with their price."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    price: float

    def times(self, count: float) -> "Cost":
        """Return the cost of ``count`` times as much."""
        return Cost(
            round(self.calls * count),
            round(self.prompt_tokens * count),
            round(self.completion_tokens * count),
            self.price * count,
        )

    def plus(self, other: "Cost") -> "Cost":
        """Return the sum of both."""
        return Cost(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.price + other.price,
        )

    def less(self, other: "Cost") -> "Cost":
        """Return the difference of both."""
        return self.plus(other.times(-1))


@dataclass(frozen=True)
class Prices:
    """What prompts cost.

    Attributes:
        introduction: Text that stands before each prompt.
        params: The prices, and how a server is asked.
    """

    introduction: str
    params: VLMParams

    def of_prompts(self, asked: Sequence[Prompt[Any]]) -> Cost:
        """Estimate prompts and their answers."""
        return self.of_tokens(
            len(asked),
            sum(map(self._prompt_tokens, asked)),
            sum(map(_completion_tokens, asked)),
        )

    def of_tokens(self, calls: int, prompt_tokens: int, completion_tokens: int) -> Cost:
        """Return the cost of counted tokens."""
        params = self.params
        sent, answered = prompt_tokens / 1e6, completion_tokens / 1e6
        price = sent * params.prompt_price + answered * params.completion_price
        return Cost(calls, prompt_tokens, completion_tokens, price)

    def schema_tokens(self, asked: Sequence[Prompt[Any]]) -> int:
        """Return about how many tokens the schemas are, for servers that count them."""
        if instruction(self.params, {}):
            return 0  # part of the prompt's text, which is counted
        return sum(tokens(json.dumps(prompt.schema)) for prompt in asked)

    def _prompt_tokens(self, prompt: Prompt[Any]) -> int:
        text = self.introduction + prompt.text + instruction(self.params, prompt.schema)
        return tokens(text) + self.params.image_tokens


def _completion_tokens(prompt: Prompt[Any]) -> int:
    """About how many tokens answer a prompt."""
    answers = prompt.schema["required"] if prompt.topic in _BY_CRITERION else ()
    return len(answers) * _VERDICT_TOKENS or _OTHER_TOKENS
