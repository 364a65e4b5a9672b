"""CPO-S online: the policy paints, the measured annotator names the poles, in rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from atelier.config.fields import Count, Integer
from atelier.objectives.cpo_s import Stabilised
from atelier.objectives.objective import Passes, Setup

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.training.loop import Step


class CPOSOnline(Stabilised):
    """CPO-S on the policy's own pictures: paint, annotate, learn, in rounds (ours)."""

    needs_judge: ClassVar[bool] = True
    needs_texts: ClassVar[bool] = True

    objective: Literal["cpo-s-online"]
    """CPO-S on pictures that the policy paints in rounds (online)."""
    captions: Count
    """Distinct captions that a round paints. [captions]"""
    group: Annotated[Integer, Field(ge=1)]
    """Pictures of each caption. [pictures]"""
    sampling_steps: Count
    """Sampling steps of the policy, without guidance. [sampling steps]"""
    round_steps: Count
    """Optimizer steps on the pictures of a round. [optimizer steps]"""

    @model_validator(mode="after")
    def _has_one_contrast(self) -> CPOSOnline:
        if isinstance(self.omega, dict) or self.confidence != "ignored":
            raise ValueError(
                "cpo-s-online has one contrast a picture: omega should be one number and "
                f"confidence 'ignored', got omega {self.omega} and confidence "
                f"{self.confidence!r}"
            )
        return self

    def title(self) -> str:
        """Return its name and strength."""
        return (
            f"{super().title()}, on its own pictures (ours), in rounds of {self.captions} × "
            f"{self.group} pictures and {self.round_steps} steps"
        )

    def passes(self, batch_images: int) -> Passes:
        """Return the passes of CPO-S, and a round's painting by its images."""
        usual = super().passes(batch_images)
        painted = self.captions * self.group * self.sampling_steps
        return Passes(usual.policy, usual.frozen + painted / (self.round_steps * batch_images))

    def step(self, setup: Setup) -> Step:
        """Return the step: that of CPO-S, on the pictures of the round.

        The policy with which a round began is part of the checkpoints (``setup.state``), so
        that a run which goes on in the middle of a round paints the same pictures again.
        A round costs ``captions · group`` annotations and ``sampling_steps`` times as many
        passes. Targets come from the frozen teacher, as in CPO-S.
        """
        return _step(self, setup)


def _step(objective: CPOSOnline, setup: Setup) -> Step:
    from atelier.models import adapters
    from atelier.objectives import teacher_targets
    from atelier.training.loop import WHOLE

    policy = adapters.weights(setup.painter.network, setup.policy)
    setup.state.update({name: weight.detach().clone() for name, weight in policy.items()})
    at_hand: dict[int, tuple[Step, float]] = {}  # the round's step and its mean of negatives

    def step_loss(
        step: int, measure: bool, part: slice = WHOLE
    ) -> tuple[Tensor, Mapping[str, float]]:
        number, begun = divmod(step, objective.round_steps)
        if number not in at_hand:
            if number > 0 and begun == 0:
                for name, weight in policy.items():
                    setup.state[name].copy_(weight.detach())
            at_hand.clear()
            own, negatives = _painted(objective, setup, number)
            at_hand[number] = teacher_targets.step(objective, own), negatives
        learn, negatives = at_hand[number]
        loss, values = learn(step, measure, part)
        if not measure:
            return loss, values
        judged = float((number + 1) * objective.captions * objective.group)
        return loss, {**values, "negatives": negatives, "judged": judged}

    return step_loss


def _painted(objective: CPOSOnline, setup: Setup, number: int) -> tuple[Setup, float]:
    """Paint a round and encode what the annotator says of it; return it as a corpus."""
    import torch

    from atelier.objectives import rounds
    from atelier.training.corpus import Corpus

    describe = setup.describe
    assert describe is not None  # the stage sees to it
    texts: dict[str, list[str]] = {"caption": [], "winner": [], "loser": []}
    wrong: list[Tensor] = []

    def look(pixels: Tensor, rows: Tensor) -> None:
        found = describe(pixels, rows)
        for role, every in texts.items():
            every += getattr(found, role)
        wrong.append(found.negatives)

    latents, _ = rounds.painted(
        setup,
        setup.state,
        number,
        objective,
        look,
    )
    distinct = list(dict.fromkeys(["", *(text for every in texts.values() for text in every)]))
    place = {text: row for row, text in enumerate(distinct)}
    with torch.no_grad():
        prompts = setup.painter.encode_texts(distinct)
    corpus = Corpus(
        latents=latents,
        prompts=prompts,
        rows={
            role: torch.tensor([[place[text]] for text in every])
            for role, every in texts.items()
        },
        empty=place[""],
    )
    return replace(setup, corpus=corpus, targets=None), torch.cat(wrong).float().mean().item()
