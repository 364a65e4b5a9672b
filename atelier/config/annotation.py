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

    base_url: str
    """Address of an OpenAI-compatible server with its version, as http://localhost:8000/v1."""
    model: str
    """Name of the model, as the server calls it."""
    key_variable: str | None
    """Environment variable that holds the server's key; null: the server needs none."""
    answers: Literal[
        "json_schema", "json_schema_loose", "json_object_schema", "json_object", "plain"
    ]
    """Strictest format of answers to which the server can be held."""
    activation: Literal["at_once", "in_rounds"]
    """How the model finds the criteria that matter in a picture: all groups in one question, or
    branches first and their criteria next."""
    concurrency: Count
    """Largest number of questions on their way at the same time. [requests]"""
    timeout_seconds: Positive
    """Time after which one question is given up. [seconds]"""
    tries: Count
    """Attempts at one question before its picture is set aside. [requests]"""
    longest_wait_seconds: Positive
    """Longest wait between two attempts, also where the server's Retry-After asks for more.
    [seconds]"""
    pixels: Count
    """Side of the center square of each picture that is sent. [pixels]"""
    criteria_per_call: Count
    """Approximate number of criteria that one question asks about. [criteria]"""
    votes: Count
    """Times that each judgement is asked for; the confidence is the share of equal votes.
    [votes]"""
    temperature: NonNegative | None
    """Sampling temperature of the model; null: the server's own. [number]"""
    max_tokens: Count
    """Longest answer to one question. [tokens]"""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"]
    """Name of the request's field that limits the answer's length."""
    write_captions: bool
    """Whether the model writes captions for pictures that have none."""
    image_tokens: Whole
    """Tokens that the model counts for one picture; only estimates of cost use it. [tokens]"""
    prompt_price: NonNegative
    """Price of the tokens that are sent. [currency per million tokens]"""
    completion_price: NonNegative
    """Price of the tokens that are answered. [currency per million tokens]"""
    cost_cap: Positive | None
    """Total cost of this model's answers to these criteria at which annotation stops; null: no
    limit. [currency]"""

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
    """A judgement counts only if all annotators that judged agree."""


class Majority(Params):
    """The pole counts that more than half of the judging annotators chose."""

    rule: Literal["majority"]
    """The pole counts that more than half of the annotators chose."""
    quorum: Count
    """Annotators that have to judge, or nothing counts. [annotators]"""


class Weighted(Params):
    """The pole counts that has the larger sum of confidences."""

    rule: Literal["weighted"]
    """The pole counts that has the larger sum of confidences."""


class Trust(Params):
    """The judgement counts of the first annotator in ``order`` that did not abstain."""

    rule: Literal["trust"]
    """The judgement of the first annotator in `order` that did not abstain counts."""
    order: Annotated[list[str], Field(min_length=1)]
    """Names of annotators, most trusted first; `*` stands for any letters. Others are not read.
    """


Adjudication = Annotated[Unanimous | Majority | Weighted | Trust, Field(discriminator="rule")]


class AnnotateParams(Params):
    """``annotate:`` who judges, by which criteria."""

    criteria: Inside
    """File of params/criteria/ with the tree of criteria."""
    annotator: Literal["measured", "recorded", "vlm"]
    """What judges the pictures: measures of pixels, a vision-language model, or only the
    recorded files."""
    recorded: list[str] | None
    """JSONL files of judgements in labels/, which count as well; null: none."""
    adjudication: Adjudication
    """Rule that decides which judgement counts where several annotators judge."""
    vlm: VLMParams | None
    """The model that the annotator `vlm` asks; null: there is none."""
    captions: str | None
    """CSV or JSONL table inside data/ with the columns file and caption; null: file names are
    captions."""
    smallest_side_pixels: Count
    """Shorter side below which a picture is set aside. [pixels]"""
    largest_pixels: Count
    """Area above which a picture is set aside without being decoded. [pixels]"""

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
    """Share of the artworks whose pictures train. [share]"""
    validation: Fraction
    """Share of the artworks on which settings are chosen. [share]"""
    test: Fraction
    """Share of the artworks whose captions are painted for the results. [share]"""
    near_duplicate_bits: Annotated[Integer, Field(ge=0, le=64)] | None
    """Largest distance of two pictures' perceptual hashes at which they count as copies and
    stay in one part; null: off. [bits of 256]"""
    train_share: Annotated[Real, Field(gt=0, le=1)]
    """Share of the training part that is used. [share]"""
    salt: str
    """Word that enters the hash of the split; another word gives another split."""

    @model_validator(mode="after")
    def _adds_up(self) -> "SplitParams":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test should be 1, is {total:g}")
        return self
