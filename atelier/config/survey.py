"""``survey:`` of a profile: raters, pairs and questions of the user study."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from atelier.config.fields import Count, Fraction, Name, Params, Seed, Whole

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?")


class SurveyParams(Params):
    """``survey:`` how people compare painters, pair by pair; no stage, see docs/survey.md."""

    painters: Annotated[list[str], Field(min_length=2)]  # as evaluate calls them, or models:/…
    groups: Annotated[list[Name], Field(min_length=1)]  # of people, reported apart: experts, …
    pairs: Count  # captions on which each two painters are compared
    raters: Count  # people of each group who see each pair
    pairs_each: Count  # pairs that one person sees, at most, along every dimension
    checks: Whole  # questions with a ruined picture that each person meets
    checks_passed: Fraction  # share of them to be answered rightly, or the person is left out
    repeats: Whole  # questions that each person is asked again, sides swapped
    address: str  # how people reach the server; https://… where they are not on its machine
    contact: str | None  # who runs the study, as its pages say; null: who sent the link
    seed: Seed

    @field_validator("painters", "groups")
    @classmethod
    def _differ(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("should hold each name once")
        return names

    @field_validator("address")
    @classmethod
    def _has_no_path(cls, address: str) -> str:
        if not _ORIGIN.fullmatch(address):
            raise ValueError("should be http(s)://host or http(s)://host:port, nothing more")
        return address
