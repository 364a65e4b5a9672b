"""``annotate:`` and ``split:`` of a profile: annotators, aggregation and data split."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from atelier import connections
from atelier.config.fields import (
    Count,
    Fraction,
    Inside,
    Integer,
    NonNegative,
    Params,
    Positive,
    Real,
    Whole,
)

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")


class VLMParams(Params):
    """``annotate.vlm:`` the agent: which model looks, where it is served, what it may cost."""

    base_url: str  # of an OpenAI-compatible server, with its version: http://localhost:8000/v1
    model: str  # as the server calls it
    key_variable: str | None  # environment variable that holds the key; null: none is needed
    answers: Literal[  # what the server can be held to, the strictest first
        "json_schema", "json_schema_loose", "json_object_schema", "json_object", "plain"
    ]
    activation: Literal["at_once", "in_rounds"]  # what matters: all groups, or branches first
    concurrency: Count  # requests on their way at once
    timeout_seconds: Positive  # of one request
    tries: Count  # of one question, before its picture is set aside
    longest_wait_seconds: Positive  # between two tries, whatever Retry-After asks for
    pixels: Count  # side of the middle square that is sent
    criteria_per_call: Count  # judged in one question, about
    votes: Count  # times each judgement is asked for; confidence is then the share of votes
    temperature: NonNegative | None  # null: the server's own
    max_tokens: Count  # of one answer
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"]  # as the server calls it
    write_captions: bool  # where the table has none, or there is no table
    image_tokens: Whole  # what the model counts for one picture; for estimates alone
    prompt_price: NonNegative  # of a million tokens sent, in your currency
    completion_price: NonNegative  # of a million tokens answered
    cost_cap: Positive | None  # of all answers by this model and these criteria; null: none

    @field_validator("key_variable")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not _VARIABLE.fullmatch(name):
            # Not shown: it may be the key itself.
            raise ValueError(
                "should be the name of an environment variable, in capitals, such as "
                "OPENAI_API_KEY; the key itself belongs into that variable, into no file"
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _holds_no_key(cls, url: str) -> str:
        if not _URL.fullmatch(url) or not connections.is_address(url):
            raise ValueError(
                "should be http(s)://host:port/path without a user, a password or a query; the "
                "key belongs into the environment variable that key_variable names"
            )
        return url

    @model_validator(mode="after")
    def _votes_differ(self) -> "VLMParams":
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(f"{self.votes} votes are one vote at temperature 0; raise it")
        return self


class Unanimous(Params):
    """A judgement counts only if all judging annotators agree on it."""

    rule: Literal["unanimous"]


class Majority(Params):
    """The pole counts that more than half of the judging annotators chose."""

    rule: Literal["majority"]
    quorum: Count  # annotators that must judge, or nothing counts


class Weighted(Params):
    """The pole counts that has the larger sum of confidences."""

    rule: Literal["weighted"]


class Trust(Params):
    """The judgement counts of the first annotator in ``order`` that did not abstain."""

    rule: Literal["trust"]
    order: Annotated[list[str], Field(min_length=1)]  # annotators, `*` any letters; no others


Adjudication = Annotated[Unanimous | Majority | Weighted | Trust, Field(discriminator="rule")]


class AnnotateParams(Params):
    """``annotate:`` who judges, by which criteria."""

    criteria: Inside  # the tree, a file in params/criteria/
    annotator: Literal["measured", "recorded", "vlm"]  # recorded: only the files below
    recorded: list[str] | None  # JSONL of judgements in labels/, one or several; they count too
    adjudication: Adjudication  # which judgement counts if several annotators judge
    vlm: VLMParams | None  # the model that `vlm` asks; null if there is none
    captions: (
        str | None
    )  # CSV or JSONL inside data/ with columns file, caption; null: file names
    smallest_side_pixels: Count  # smaller pictures are set aside
    largest_pixels: Count  # pictures of more pixels are set aside unread

    @field_validator("recorded", mode="before")
    @classmethod
    def _one_file_is_a_list(cls, recorded: Any) -> Any:
        return [recorded] if isinstance(recorded, str) else recorded

    @model_validator(mode="after")
    def _says_whose_judgements(self) -> "AnnotateParams":
        if self.annotator == "recorded" and not self.recorded:
            raise ValueError(
                "recorded should be a JSONL file of judgements, or several, when annotator is "
                "'recorded', is null; `atelier labels read` makes one"
            )
        return self

    @model_validator(mode="after")
    def _says_which_model_looks(self) -> "AnnotateParams":
        if self.annotator == "vlm" and self.vlm is None:
            raise ValueError(
                "vlm should say where the model is served when annotator is 'vlm', is null; "
                "docs/annotators.md has sections to copy"
            )
        return self


class SplitParams(Params):
    """``split:`` shares of training, validation and test set."""

    train: Fraction
    validation: Fraction
    test: Fraction
    # Distance of perceptual hashes (of 256 bits) up to which two pictures are copies; null: off
    near_duplicate_bits: Annotated[Integer, Field(ge=0, le=64)] | None
    train_share: Annotated[Real, Field(gt=0, le=1)]  # of the training part that is used
    salt: str  # another word gives another split

    @model_validator(mode="after")
    def _adds_up(self) -> "SplitParams":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test should be 1, is {total:g}")
        return self
