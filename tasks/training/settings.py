"""The settings that a model was trained with, for the registry and model cards."""

from typing import Any

from atelier.config.profile import Profile

THETA1 = "theta1"


def of(model: str, profile: Profile) -> dict[str, Any]:
    """Return what θ1, or the θ of an objective, was trained with."""
    if model == THETA1:
        return profile.sft.model_dump()
    cpo = profile.cpo.model_dump()
    learns = {"lora": "full"} if cpo["lora"] == "full" else cpo["lora"]
    return {**cpo["objectives"].get(model, {}), **learns, **cpo["training"]}
