"""What every objective is: its settings, what its training needs, its step and its sentence.

A new objective is one file: a class on ``ObjectiveParams`` (or on ``TeacherTargets`` or
``Pairwise``, whose steps are shared), its loss, and its place in the union of
``atelier.config.objectives``. The files of the objectives hold settings, which every command
reads, so they import torch inside functions alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from atelier.config.fields import Count, Origin, Params, Positive, Real
from atelier.config.training import MinSNR, Training, Weighting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atelier.models.adapters import State
    from atelier.models.denoiser import Denoiser
    from atelier.objectives.predictions import Predictions
    from atelier.training.corpus import Corpus, Pairs
    from atelier.training.loop import Step
    from atelier.training.target_cache import TargetCache

Winner = Literal["labelled", "flipped"]
Teacher = Literal["sft", "base", "self"]  # who gives the targets: θ1, the base, the θ of now
Confidence = Literal["ignored", "weighs"]  # does an unsure judgement enter targets less often?
Reference = Literal["base", "sft"]  # the base, or θ1
# An image without good poles: it trains the winner alone, or its caption alone is the winner.
EmptyPositive = Literal["winner-only", "caption-wins"]
# Pixels in [-1, 1], [B, 3, H, W] → how many faults each picture has, [B].
Judge = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True)
class Described:
    """What the annotator found on painted pictures, as prompts; each list has one a picture.

    Attributes:
        caption: The caption alone.
        winner: The winner's prompt.
        loser: The loser's prompt.
        negatives: How many bad poles each picture has, ``[B]``.
    """

    caption: Sequence[str]
    winner: Sequence[str]
    loser: Sequence[str]
    negatives: Tensor


# Pixels in [-1, 1], [B, 3, H, W], and the rows of their captions, [B].
Describe = Callable[["Tensor", "Tensor"], Described]


@dataclass(frozen=True)
class Setup:
    """What a step is built from.

    Attributes:
        painter: One base with the adapters of θ1 and of the policy.
        corpus: With the role ``caption``, one prompt an image; for targets of a teacher with
            ``winner`` and ``loser``, a prompt a contrast, and ``omegas`` where strengths
            differ by root.
        params: Batch, times, seed.
        teacher: Name of θ1's adapter; frozen.
        policy: Name of θ's adapter; trained, and in force when a step returns.
        caption_dropout: Share of images whose caption the policy and its reference read as
            empty; targets keep it. Without it θ learns nothing of the empty prompt, which
            guidance compares with.
        pairs: Which image wins against which, for objectives that need pairs.
        judge: What counts the faults of a picture, for objectives that need a judge; the
            codec is in memory then.
        describe: What writes prompts of the poles that it finds on a picture, for objectives
            that need it; codec and text encoders are in memory then.
        negatives: How many bad poles each image was judged to have, ``[N]``.
        state: Tensors beside the weights that a step changes in place, by name; checkpoints
            hold them, too.
        targets: Where a frozen teacher's targets are kept; None: they are computed each time.
    """

    painter: Denoiser
    corpus: Corpus
    params: Training
    teacher: str
    policy: str
    caption_dropout: float
    pairs: Pairs | None = None
    judge: Judge | None = None
    describe: Describe | None = None
    negatives: Tensor | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    targets: TargetCache | None = None


@dataclass(frozen=True)
class Contrasts:
    """Under which prompts a teacher predicts the targets of an image.

    Attributes:
        winner: Whether the winner's prompt names the labelled good poles, or all.
        by_confidence: Whether prompts are drawn, each attribute kept as often as the
            annotator was sure of it.
        caption_wins: Whether an image without good poles contrasts its caption with its bad
            poles; else it trains the winner alone.
        omegas: A strength for each root of the criteria, where each root has a contrast of
            its own; None: one contrast of all attributes.
    """

    winner: Winner
    by_confidence: bool = False
    caption_wins: bool = False
    omegas: Mapping[str, float] | None = None


@dataclass(frozen=True)
class NegativeBranch:
    """Where a θ stands that learned what is bad: on the negative branch of guidance.

    Attributes:
        beside: Models on the positive branch: base, theta1, or other objectives.
        w: ``theta_neg = base + (1 - w) delta_pos + delta``.
    """

    beside: Sequence[str]
    w: float


@dataclass(frozen=True)
class Passes:
    """Images that go through the network for each image of a training's batches.

    Attributes:
        policy: With a gradient: each also goes back through it.
        frozen: Without: teacher, reference, older policies, what is painted to be judged. What
            only the monitor asks for, every ``report_steps``, is not counted.
    """

    policy: float
    frozen: float


class ObjectiveParams(Params, ABC):
    """Settings of one objective, and what the pipeline asks of it.

    Options of ours that depart from the usual form of a method have a default, which is off.
    """

    needs_pairs: ClassVar[bool] = False  # of pictures
    needs_judge: ClassVar[bool] = False  # of what the policy is about to paint
    needs_texts: ClassVar[bool] = False  # encoders of prompts that its judge's words make

    learning_rate: Positive
    """Peak learning rate. [number]"""
    init: Origin = "base"
    """Where θ begins: as the base, as a copy of θ1 (sft), or as a LoRA in loras/."""
    reference: Reference = "base"
    """What the loss and the drift monitor compare θ with: the base, or θ1 (sft)."""
    milestones: tuple[Count, ...] = ()
    """Steps after which the weights of that moment become a candidate, too. [optimizer steps]
    """

    @abstractmethod
    def step(self, setup: Setup) -> Step:
        """Return what one step of training computes."""

    @abstractmethod
    def passes(self, batch_images: int) -> Passes:
        """Return what an image of a batch of ``batch_images`` costs in passes."""

    @abstractmethod
    def title(self) -> str:
        """Return what it is and how strong, in words that tables show."""

    def details(self) -> list[str]:
        """Return how it departs from its usual form, in words that tables show."""
        as_what = "θ1" if self.init == "sft" else self.init
        found = [] if self.init == "base" else [f"begins as {as_what}"]
        if self.reference == "sft" and self.needs_reference():
            found.append("reference: θ1")
        return found

    def about(self) -> str:
        """Return its sentence for tables."""
        return ", ".join([self.title(), *self.details()])

    def reference_state(self, setup: Setup) -> State:
        """Return the state of the network that is the reference."""
        return setup.teacher if self.reference == "sft" else None

    def sampled_without_guidance(self) -> bool:
        """Return whether its θ has learned what guidance adds, and is sampled with 1 pass."""
        return False

    def needs_reference(self) -> bool:
        """Return whether its loss reads what a frozen reference predicts."""
        return True

    def contrasts(self) -> Contrasts | None:
        """Return the prompts that its targets need; None: it has no teacher."""
        return None

    def negative_branch(self) -> NegativeBranch | None:
        """Return where its θ stands; None: it is a model of its own."""
        return None

    def swept(self) -> float | None:
        """Return its ω; objectives that differ by ω alone are points of one curve."""
        return None


class TeacherTargets(ObjectiveParams):
    """Objectives whose two targets a teacher predicts at one noisy latent.

    What they share in a step: ``teacher_targets``.
    """

    winner: Winner
    """Prompt of the winner's target: the attributes that are labeled good, or every active pair
    at its good pole (flipped)."""
    weighting: Weighting
    """Weight ω(λ) of the loss over the times."""
    teacher_guidance: Annotated[Real, Field(ge=1)] = 1.0
    """Guidance g inside the targets, f(∅) + g (f(y, attributes) − f(∅)); the trained θ is then
    sampled in one pass. 1: off. [number]"""
    empty_positive: EmptyPositive = "winner-only"
    """What an image without good attributes does: it trains the winner alone, or its caption
    wins against its bad attributes."""

    @abstractmethod
    def taught_by(self) -> Teacher:
        """Return who predicts the targets."""

    def passes(self, batch_images: int) -> Passes:
        """Return the policy's pass, and those of two or three targets and the reference."""
        del batch_images
        targets = 3 if self.teacher_guidance > 1 else 2
        return Passes(1, targets + self.needs_reference())

    @abstractmethod
    def loss(self, at: Predictions) -> Tensor:
        """Return the loss of each image, ``[B]``."""

    def aim(self, at: Predictions) -> Tensor:
        """Return where it leads each image, which the drift monitor measures against."""
        return at.win

    def is_logistic(self) -> bool:
        """Return whether the loss is ``-log sigmoid`` of something, whose gradient fades."""
        return True

    def contrasts(self) -> Contrasts:
        """Return one contrast of all attributes."""
        return Contrasts(self.winner, caption_wins=self.empty_positive == "caption-wins")

    def sampled_without_guidance(self) -> bool:
        """Return whether guidance is inside its targets."""
        return self.teacher_guidance > 1

    def step(self, setup: Setup) -> Step:
        """Return the step that objectives with a teacher share."""
        from atelier.objectives import teacher_targets

        return teacher_targets.step(self, setup)

    def details(self) -> list[str]:
        """Return how it departs from its usual form, in words that tables show."""
        found = [
            {
                "labelled": "winner: the labelled good poles",
                "flipped": "winner: every active pair at its good pole (ours, not the paper's)",
            }[self.winner],
            *_weighted(self.weighting),
            *super().details(),
        ]
        if self.teacher_guidance > 1:
            found.append(f"guidance {self.teacher_guidance:g} inside the targets (ours)")
        if self.empty_positive == "caption-wins":
            found.append("without good poles the caption wins (ours)")
        return found


class ChosenTeacher(TeacherTargets):
    """Objectives of CPO: the teacher is θ1, the base or θ itself, by setting."""

    teacher: Teacher
    """Who predicts the targets: θ1 (sft), the base, or θ itself."""
    confidence: Confidence
    """Whether an unsure judgement enters the targets' prompts less often."""

    def taught_by(self) -> Teacher:
        """Return who predicts the targets."""
        return self.teacher

    def contrasts(self) -> Contrasts:
        """Return one contrast of all attributes, drawn where confidence weighs."""
        return replace(super().contrasts(), by_confidence=self.confidence == "weighs")

    def details(self) -> list[str]:
        """Return how it departs from its usual form, in words that tables show."""
        found = super().details()
        if self.teacher != "sft":
            who = {"base": "the base", "self": "θ itself"}[self.teacher]
            found.append(f"targets from {who} (ours)")
        if self.confidence == "weighs":
            found.append("unsure judgements enter less often (ours)")
        return found


# Errors of the winners and of the losers of pairs, each [B].
Errors = tuple["Tensor", "Tensor"]


class Pairwise(ObjectiveParams):
    """Objectives that learn from pairs of pictures; what they share in a step: ``pairwise``."""

    needs_pairs: ClassVar[bool] = True
    towards_loser: ClassVar[bool] = False

    @abstractmethod
    def loss(self, policy: Errors, reference: Errors) -> Tensor:
        """Return the loss of each pair, ``[B]``, of ``denoising_error``s."""

    def safeguarded(
        self,
        losses: Tensor,
        policy: Errors,
        counts: Tensor,
        trained: Sequence[nn.Parameter],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss whose gradient trains, and values to report.

        Args:
            losses: From ``loss``, ``[B]``.
            policy: The policy's errors.
            counts: How much each pair counts, ``[B]``.
            trained: The weights that are trained.
        """
        del policy, trained
        return (counts * losses).mean(), {}

    def passes(self, batch_images: int) -> Passes:
        """Return the policy's pass, and the reference's where the loss reads it."""
        del batch_images
        return Passes(1, self.needs_reference())

    def step(self, setup: Setup) -> Step:
        """Return the step that objectives on pairs share."""
        from atelier.objectives import pairwise

        return pairwise.step(self, setup)


def _weighted(weighting: Weighting) -> list[str]:
    if isinstance(weighting, MinSNR):
        return [f"min-SNR weights, γ {weighting.min_snr_gamma:g}"]
    return {"constant": [], "snr": ["SNR weights"]}[weighting]
