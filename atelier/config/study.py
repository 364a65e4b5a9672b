"""``params/<study>.yaml``: the grid of a study: methods, sweeps, seeds."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from atelier.config.fields import Count, Fraction, Name, Params, Real, Seed
from atelier.config.objectives import Objective
from atelier.objectives.npo import NPO


class Guided(Params):
    """``guided:`` models sampled with guidance, together with NPO and alone."""

    guidance: Annotated[Real, Field(gt=1)]
    methods: Annotated[list[Name], Field(min_length=1)]
    caption_dropout: Fraction  # of a second training of the same methods
    npo: NPO


class Sweep(Params):
    """``sweep:`` one setting of the proposed method, over values."""

    field: str
    values: Annotated[list[Any], Field(min_length=1)]


class Shorter(Params):
    """``steps:`` the same methods, trained for fewer steps."""

    values: list[Count]
    methods: Annotated[list[Name], Field(min_length=1)]


class StudyParams(Params):
    """``params/study.yaml``: what ``atelier study`` runs."""

    profile: Name
    seeds: Annotated[list[Seed], Field(min_length=1)]
    tuning_seed: Seed
    tuning_prompts: Count
    reference: str  # a painter: differences are taken to it, and to the base
    proposed: Name
    settings: dict[str, Any]  # changes of the profile for all runs, by dotted names
    methods: dict[Name, Annotated[list[Objective], Field(min_length=1)]]
    guided: Guided | None
    sweep: Sweep | None
    variants: dict[Name, dict[str, Any]]  # changes of the proposed method as chosen
    steps: Shorter | None
    volumes: list[Annotated[Real, Field(gt=0, lt=1)]]  # split.train_share

    @model_validator(mode="after")
    def _is_fair_and_whole(self) -> "StudyParams":
        budgets = {name: len(entries) for name, entries in self.methods.items()}
        if len(set(budgets.values())) > 1:
            raise ValueError(f"methods should have equally many configurations, have {budgets}")
        if self.tuning_seed in self.seeds:
            raise ValueError(f"tuning_seed {self.tuning_seed} should be none of seeds")
        named = [self.proposed, *(self.guided.methods if self.guided else ())]
        unknown = {*named, *(self.steps.methods if self.steps else ())} - set(self.methods)
        if unknown:
            raise ValueError(f"methods has no {', '.join(sorted(unknown))}")
        return self
