"""``cpo:`` of a profile: the objectives, their settings, and pairs of pictures."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from atelier.config.fields import (
    Count,
    Fraction,
    Inside,
    Integer,
    Name,
    NonNegative,
    Params,
    Positive,
    Real,
    Whole,
)
from atelier.config.training import Learns, Training, Weighting

Winner = Literal["labelled", "flipped"]


Teacher = Literal["sft", "base", "self"]  # who gives the targets: θ1, the base, the θ of now


Confidence = Literal["ignored", "weighs"]  # does an unsure judgement enter targets less often?


Omega = NonNegative | Annotated[dict[str, NonNegative], Field(min_length=1)]  # one, or by root


class CPO(Params):
    """L_CPO, not stabilised: the logistic loss in the Diffusion-DPO frame."""

    objective: Literal["cpo"]
    winner: Winner
    teacher: Teacher
    confidence: Confidence
    beta: Positive  # pull towards the reference; see objectives.cpo
    weighting: Weighting
    learning_rate: Positive


class CPOS(Params):
    """L_stab: the losing term has a fixed target, by one of three readings."""

    objective: Literal["cpo-s"]
    loser_target: Literal["mirror-winner", "mirror-policy", "mirror-reference"]
    winner: Winner
    teacher: Teacher
    confidence: Confidence
    omega: Omega  # how far past the winner; see objectives.loser_target
    weighting: Weighting
    learning_rate: Positive

    @model_validator(mode="after")
    def _has_a_fixed_point(self) -> "CPOS":
        if isinstance(self.omega, dict):
            if self.loser_target != "mirror-winner":
                raise ValueError(
                    "omega by root needs loser_target mirror-winner, whose fixed point is "
                    f"linear in omega, got {self.loser_target}"
                )
        elif self.loser_target == "mirror-policy" and self.omega >= 1:
            raise ValueError(
                f"omega should be below 1 for mirror-policy (its fixed point is at "
                f"omega / (1 - omega)), got {self.omega:g}"
            )
        return self


class DDSPO(Params):
    """DDSPO on our prompts: L_CPO with the base as teacher."""

    objective: Literal["ddspo"]
    winner: Winner
    beta: Positive
    weighting: Weighting
    learning_rate: Positive


class DPO(Params):
    """Diffusion-DPO on pairs of pictures."""

    objective: Literal["dpo"]
    beta: Positive  # on a mean error, with the factor 1/2; see objectives.with_half
    learning_rate: Positive


class NPO(Params):
    """Diffusion-NPO: DPO with the pair swapped; paints on the negative branch of others."""

    objective: Literal["npo"]
    beta: Positive
    learning_rate: Positive
    w: Fraction  # theta_neg = base + (1 - w) delta_pos + delta_npo
    beside: Annotated[list[str], Field(min_length=1)]  # base, theta1, or other objectives


class MaPO(Params):
    """MaPO: a margin without a reference, beside the winner's denoising loss."""

    objective: Literal["mapo"]
    beta: Positive  # of the margin's term against the winner's error
    scale: Positive  # of the errors inside x / expm1(x)
    learning_rate: Positive


class SDPO(Params):
    """Diffusion-SDPO: DPO whose losing gradient never raises the winner's error."""

    objective: Literal["sdpo"]
    beta: Positive
    slack: Fraction  # this share of the largest safe losing gradient is not used
    learning_rate: Positive


class SPO(Params):
    """SPO without a step-aware scorer: the measured annotator looks at x0-predictions."""

    objective: Literal["spo-measured"]
    beta: Positive  # of the clipped log ratio
    clip: Annotated[Real, Field(gt=0, lt=1)]  # half-width of the ratio's trust region
    steps: Annotated[Integer, Field(ge=3)]  # of the sampler whose single steps are judged
    untrained: Whole  # of them, the noisiest ones, that are not
    churn: Annotated[Real, Field(gt=0, le=1)]  # DDIM's eta: how much noise a step adds
    gap: Count  # negatives between two candidates that make a pair of them
    learning_rate: Positive

    @model_validator(mode="after")
    def _trains_some_steps(self) -> "SPO":
        if self.untrained > self.steps - 3:
            raise ValueError(
                f"untrained should leave steps to train, at most {self.steps - 3} of "
                f"{self.steps}, is {self.untrained}"
            )
        return self


TeacherTaught = CPO | CPOS | DDSPO


Pairwise = DPO | NPO | MaPO | SDPO


Objective = Annotated[TeacherTaught | Pairwise | SPO, Field(discriminator="objective")]


class AnnotationPairs(Params):
    """Pairs of pictures from the judgements: fewer negatives win."""

    source: Literal["annotations"]
    caption_similarity: Annotated[Real, Field(gt=0, le=1)]  # 1: equal captions only
    neighbours: Count  # partners that each picture meets
    ties: Literal["dropped", "halved"]  # halved: both orders, at half weight each


class TablePairs(Params):
    """Pairs of pictures that somebody brought; docs/pairs.md."""

    source: Literal["table"]
    table: Inside  # CSV beside the pictures, with the columns file_win, file_lose, caption


PairParams = Annotated[AnnotationPairs | TablePairs, Field(discriminator="source")]


class CPOParams(Params):
    """``cpo:`` the base learns, from captions alone, what θ1 tells apart; a θ an objective."""

    objectives: Annotated[dict[Name, Objective], Field(min_length=1)]
    featured: Name  # the objective whose θ the report compares with the base
    caption_dropout: Fraction  # share of steps' captions that the policy reads as empty
    attribute_draws: Count  # prompts drawn for an image where confidence weighs
    pairs: PairParams | None  # what dpo, npo, mapo and sdpo learn from; null: nothing does
    lora: Learns
    training: Training

    @model_validator(mode="after")
    def _featured_is_trained(self) -> "CPOParams":
        if self.featured not in self.objectives:
            raise ValueError(
                f"featured should be one of {sorted(self.objectives)}, got {self.featured!r}"
            )
        if isinstance(self.objectives[self.featured], NPO):
            raise ValueError(
                f"featured should be a painter of its own, got {self.featured!r}, which only "
                "stands beside others"
            )
        return self

    @model_validator(mode="after")
    def _pairs_are_there(self) -> "CPOParams":
        pairwise = [name for name, one in self.objectives.items() if isinstance(one, Pairwise)]
        if pairwise and self.pairs is None:
            raise ValueError(
                f"pairs should say where {', '.join(pairwise)} get their pairs of pictures, "
                "is null; docs/pairs.md has both ways"
            )
        if pairwise and self.training.batch_images % 2:
            raise ValueError(
                f"training.batch_images should be even, for {', '.join(pairwise)} see pairs; "
                f"is {self.training.batch_images}"
            )
        return self

    @model_validator(mode="after")
    def _company_exists(self) -> "CPOParams":
        painters = {"base", "theta1"} | {
            name for name, one in self.objectives.items() if not isinstance(one, NPO)
        }
        for name, one in self.objectives.items():
            unknown = sorted(set(one.beside) - painters) if isinstance(one, NPO) else []
            if unknown:
                raise ValueError(
                    f"objectives.{name}.beside should name painters of {sorted(painters)}, "
                    f"has {', '.join(unknown)}"
                )
        return self
