"""``cpo:`` of a profile: the objectives and what their trainings share.

An objective's own settings stand in its file, ``atelier/objectives/``; the union here names
all of them.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from atelier.config.fields import Count, Fraction, Name, Params
from atelier.config.pairs import PairParams
from atelier.config.training import Learns, Training
from atelier.objectives.cpo import CPO
from atelier.objectives.cpo_s import CPOS
from atelier.objectives.cpo_s_online import CPOSOnline
from atelier.objectives.ddspo import DDSPO
from atelier.objectives.dpo import DPO
from atelier.objectives.mapo import MaPO
from atelier.objectives.nft import NFT
from atelier.objectives.nft_online import NFTOnline
from atelier.objectives.npo import NPO
from atelier.objectives.sdpo import SDPO
from atelier.objectives.slider import Slider
from atelier.objectives.spo_measured import SPO

Objective = Annotated[
    CPO | CPOS | CPOSOnline | DDSPO | DPO | NPO | NFT | NFTOnline | MaPO | SDPO | Slider | SPO,
    Field(discriminator="objective"),
]


def on_negative_branches(objectives: Mapping[str, Objective]) -> list[str]:
    """Return the names of objectives whose θ stands on the negative branch of others."""
    return [name for name, one in objectives.items() if one.negative_branch() is not None]


class CPOParams(Params):
    """``cpo:`` the base learns, from captions alone, what θ1 tells apart; a θ an objective."""

    objectives: Annotated[dict[Name, Objective], Field(min_length=1)]
    """The objectives that are trained, one θ each. The key is a name of your choice;
    `objective` in it names the method."""
    featured: Name
    """Name of the objective whose θ the report compares with the base."""
    caption_dropout: Fraction
    """Share of the captions that θ reads as empty while the targets keep them; guidance needs
    some. [share]"""
    attribute_draws: Count
    """Prompts drawn for an image where confidence weighs. [prompts]"""
    pairs: PairParams | None
    """Pairs of pictures for objectives that learn from pairs; null: there are none."""
    keep_targets: bool = False
    """Whether θ1's targets are kept on disk, so that objectives that ask for the same compute
    them once; `atelier estimate cpo` says how much that is."""
    lora: Learns
    """What learns: a LoRA of this shape, or all weights (full)."""
    training: Training
    """How every θ is trained."""

    @model_validator(mode="after")
    def _featured_is_trained(self) -> "CPOParams":
        if self.featured not in self.objectives:
            raise ValueError(
                f"featured should be one of {sorted(self.objectives)}, got {self.featured!r}"
            )
        if self.featured in on_negative_branches(self.objectives):
            raise ValueError(
                f"featured cannot be {self.featured!r}: "
                f"{self.objectives[self.featured].objective} only supplies the negative "
                "branch for other models"
            )
        return self

    @model_validator(mode="after")
    def _pairs_are_there(self) -> "CPOParams":
        pairwise = [name for name, one in self.objectives.items() if one.needs_pairs]
        if pairwise and self.pairs is None:
            raise ValueError(
                f"pairs is null, but {', '.join(pairwise)} need pairs of pictures; "
                "docs/pairs.md describes both sources"
            )
        if pairwise and self.training.batch_images % 2:
            raise ValueError(
                f"training.batch_images should be even, for {', '.join(pairwise)} see pairs; "
                f"is {self.training.batch_images}"
            )
        return self

    @model_validator(mode="after")
    def _milestones_lie_on_the_way(self) -> "CPOParams":
        for name, one in self.objectives.items():
            way = one.milestones
            if way and (list(way) != sorted(set(way)) or way[-1] >= self.training.steps):
                raise ValueError(
                    f"objectives.{name}.milestones should rise and stay below training.steps, "
                    f"{self.training.steps}, is {list(way)}"
                )
            if way and self.training.ema_decay is not None:
                raise ValueError(
                    f"objectives.{name}.milestones keeps the weights as they are on the way, "
                    "and training.ema_decay averages them; set it to null, or milestones to []"
                )
            if way and one.negative_branch() is not None:
                raise ValueError(
                    f"objectives.{name}.milestones should be [], since {one.objective} is no "
                    "candidate of its own"
                )
        return self

    @model_validator(mode="after")
    def _company_exists(self) -> "CPOParams":
        branches = on_negative_branches(self.objectives)
        models = {"base", "theta1", *self.objectives} - set(branches)
        every = self.objectives.items()
        unguided = {name for name, one in every if one.sampled_without_guidance()}
        for name in branches:
            branch = self.objectives[name].negative_branch()
            beside = set(branch.beside) if branch else set()
            if unknown := sorted(beside - models):
                raise ValueError(
                    f"objectives.{name}.beside should name models of {sorted(models)}, "
                    f"has {', '.join(unknown)}"
                )
            if alone := sorted(beside & unguided):
                raise ValueError(
                    f"objectives.{name}.beside should not name {', '.join(alone)}, which is "
                    "sampled without guidance and so has no negative branch"
                )
        return self
