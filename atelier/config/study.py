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

    objective: dict[str, Any]  # its settings, except the one that is swept
    strength: str  # the setting that is swept
    values: Annotated[list[Any], Field(min_length=1)]
    sampled: Annotated[list[Sampled], Field(min_length=1)]  # with the study's guidance, or not

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

    negatives: Positive  # at most so many times its #A_neg
    fid: Positive  # at most so many times its FID
    diversity: Annotated[Real, Field(gt=0, lt=1)]  # at least so many times its Vendi score


class Goal(Params):
    """``goal:`` what the proposed methods are to reach with one pass a step."""

    negatives: Positive  # by the annotator that trained
    independent: Positive  # by the judge that did not
    fid: Positive


class StudyParams(Params):
    """``params/study.yaml``: what ``atelier study`` runs."""

    profile: Name
    data: str | None = None  # a folder of pictures that takes the place of data/
    numbered: bool = False  # each caption ends with a number of its own: no two are alike
    seeds: Annotated[list[Seed], Field(min_length=1)]  # the first trains every method
    tuning_prompts: Count  # captions of the validation part, on which strengths are chosen
    settings: dict[str, Any]  # changes of the profile for all runs, by dotted names
    guidance: Annotated[Real, Field(gt=1)]  # of what is sampled guided
    sound: Positive  # a choice has at most so many times the FID of θ1, sampled alone
    box: Box
    goal: Goal | None = None
    proposed: Annotated[list[Name], Field(min_length=1)]  # methods whose claims are checked
    repeated: list[Name]  # methods whose choice is trained with every seed
    methods: Annotated[dict[Name, Method], Field(min_length=1)]
    volumes: list[Annotated[Real, Field(gt=0, lt=1)]]  # split.train_share, in equal epochs

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
