"""Passes of the network that a step of a progress bar costs, for the price of a run."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from atelier.models.sampling_settings import Sampling

if TYPE_CHECKING:
    from atelier.config.profile import Profile

Costs = dict[str, dict[str, float]]  # {bar's title: {"policy": with a gradient, "frozen": …}}


def of(stage: str, profile: "Profile") -> Costs:
    """Return the passes of a step of each bar that calls the network; of no other bar."""
    if stage == "sft":
        return {"sft": {"policy": profile.sft.training.batch_images, "frozen": 0}}
    if stage == "cpo":
        batch = profile.cpo.training.batch_images
        return {
            name: {kind: batch * count for kind, count in asdict(one.passes(batch)).items()}
            for name, one in profile.cpo.objectives.items()
        }
    if stage == "generate":
        wanted = profile.generate
        how = Sampling(wanted.steps, wanted.guidance)
        guided = [True, True]  # the base and θ1
        guided += [
            not one.sampled_without_guidance() for one in profile.cpo.objectives.values()
        ]
        calls = sum(how.of(guided=one).passes for one in guided) / len(guided)
        return {"paint": {"policy": 0, "frozen": wanted.steps * calls}}
    return {}
