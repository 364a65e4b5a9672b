"""``survey:`` of a profile: raters, pairs and questions of the user study."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from atelier.config.fields import Count, Fraction, Name, Params, Seed, Whole

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?")


class SurveyParams(Params):
    """``survey:`` how people compare painters, pair by pair; no stage, see docs/survey.md."""

    painters: Annotated[list[str], Field(min_length=2)]
    """Models that people compare, as the evaluation calls them, or models:/…."""
    groups: Annotated[list[Name], Field(min_length=1)]
    """Groups of people that are reported separately."""
    pairs: Count
    """Captions on which each two painters are compared. [captions]"""
    raters: Count
    """People of each group who see each pair. [people]"""
    pairs_each: Count
    """Largest number of pairs that one person sees; each is asked along every dimension.
    [pairs]"""
    checks: Whole
    """Questions with a spoiled picture that each person gets. [questions]"""
    checks_passed: Fraction
    """Least share of them that a person has to answer correctly to be counted. [share]"""
    repeats: Whole
    """Questions that each person is asked again with the sides swapped. [questions]"""
    address: str
    """Address at which people reach the server; https://… if they use other machines."""
    contact: str | None
    """Who runs the study, as its pages say; null: who sent the link."""
    seed: Seed
    """Seed of the design. [seed]"""

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
