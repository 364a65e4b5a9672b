"""``params/<study>.yaml``: a study: methods, their strengths, how they are sampled, seeds."""

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from atelier.config.fields import Count, Name, Params, Positive, Real, Seed
from atelier.config.messages import explain
from atelier.config.objectives import Objective

Sampled = Literal["alone", "guided"]
SAMPLED: tuple[Sampled, ...] = ("alone", "guided")


class Method(Params):
    """``methods.<name>:`` an objective over the values of one of its settings."""

    objective: dict[str, Any]
    """Settings of the objective, without the swept one."""
    strength: str
    """Name of the setting that is swept."""
    values: Annotated[list[Any], Field(min_length=1)]
    """Values of the swept setting; each is one training."""
    sampled: Annotated[list[Sampled], Field(min_length=1)]
    """How its models are sampled: alone, or with the study's guidance."""

    def at(self, value: object) -> dict[str, Any]:
        """Return the objective's settings at one strength."""
        return {**self.objective, self.strength: value}

    @model_validator(mode="after")
    def _is_an_objective(self) -> "Method":
        for value in self.values:
            try:
                objective: Objective = TypeAdapter(Objective).validate_python(self.at(value))
            except ValidationError as error:
                raise ValueError(
                    f"objective, with {self.strength} {value}, does not fit:\n{explain(error)}"
                ) from None
            if objective.negative_branch() is not None:
                raise ValueError(
                    f"objective should be a painter of its own, which {objective.objective} is "
                    "not"
                )
            if objective.sampled_without_guidance() and "guided" in self.sampled:
                raise ValueError(
                    f"sampled should be [alone], since {objective.objective} with these "
                    "settings is sampled without guidance"
                )
        if len(set(self.sampled)) < len(self.sampled):
            raise ValueError(f"sampled should name each way once, names {self.sampled}")
        return self


class Box(Params):
    """``box:`` within which fronts are measured, in shares of what θ1, sampled alone, has."""

    negatives: Positive
    """Largest #A_neg, in shares of θ1's. [ratio]"""
    fid: Positive
    """Largest FID, in shares of θ1's. [ratio]"""
    diversity: Annotated[Real, Field(gt=0, lt=1)]
    """Least Vendi score, in shares of θ1's. [ratio]"""


class Goal(Params):
    """``goal:`` what the proposed methods are to reach with one pass a step."""

    negatives: Positive
    """#A_neg to reach by the annotator that trained. [attributes per picture]"""
    independent: Positive
    """#A_neg to reach by the independent judge. [attributes per picture]"""
    fid: Positive
    """FID to reach. [FID]"""


class StudyParams(Params):
    """``params/study.yaml``: what ``atelier study`` runs."""

    profile: Name
    """Name of the profile that all runs change."""
    title: Annotated[str, Field(min_length=1)] | None = None
    """Title of the page; null: the study's name."""
    data: str | None = None
    """Folder of pictures instead of data/; null: data/."""
    grid: bool = True
    """Whether the page shows pictures; false where they may not be published."""
    numbered: bool = False
    """Whether each caption gets a number, so that no two are equal."""
    seeds: Annotated[list[Seed], Field(min_length=1)]
    """Seeds; the first trains every method. [seed]"""
    tuning_prompts: Count
    """Captions of the validation part on which strengths are chosen. [captions]"""
    settings: dict[str, Any]
    """Changes of the profile for all runs, by dotted names."""
    guidance: Annotated[Real, Field(gt=1)]
    """Classifier-free guidance of models that are sampled guided. [number]"""
    sound: Positive
    """Largest FID of a chosen strength, in shares of the FID of θ1 without guidance. [ratio]"""
    box: Box
    """Region within which fronts are measured, in shares of what θ1 has without guidance."""
    goal: Goal | None = None
    """What the proposed methods should reach with one pass a step; null: nothing is checked."""
    proposed: Annotated[list[Name], Field(min_length=1)]
    """Names of the methods whose claims are checked."""
    repeated: list[Name]
    """Names of the methods whose choice is trained with every seed."""
    methods: Annotated[dict[Name, Method], Field(min_length=1)]
    """The methods, by name."""
    volumes: list[Annotated[Real, Field(gt=0, lt=1)]]
    """Values of split.train_share that are tried, in equal epochs. [share]"""

    @cached_property
    def trainings(self) -> dict[str, tuple[str, Any]]:
        """Method and strength of each training, by the training's name."""
        return dict(self._trainings())

    def _trainings(self) -> Iterator[tuple[str, tuple[str, Any]]]:
        for name, method in self.methods.items():
            for value in method.values:
                said = str(value).lower().replace(".", "-")
                yield (f"{name}-{said}", (name, value))

    @model_validator(mode="after")
    def _is_whole(self) -> "StudyParams":
        unknown = {*self.proposed, *self.repeated} - set(self.methods)
        if unknown:
            raise ValueError(f"methods has no {', '.join(sorted(unknown))}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds should name each once, names {self.seeds}")
        every = [name for name, _ in self._trainings()]
        twice = sorted({name for name in every if every.count(name) > 1})
        if twice:
            raise ValueError(
                f"methods and values should give trainings of different names, two are called "
                f"{', '.join(twice)}"
            )
        return self
