"""Settings of sampling: steps and guidance; without torch, for those that only show them."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Attributes:
        steps: Of the sampler.
        guidance: Classifier-free guidance, a second pass a step; 1 is off.
        distilled_guidance: The number that a model distilled with guidance reads as an input,
            as FLUX.1-dev does; None for models without such an input.
    """

    steps: int
    guidance: float
    distilled_guidance: float | None = None

    def of(self, *, guided: bool) -> "Sampling":
        """Return how a model is sampled that is, or is not, meant to be guided."""
        return self if guided else replace(self, guidance=1.0)

    @property
    def passes(self) -> int:
        """Return how often the network is called for a step: guidance takes a second pass."""
        return 2 if self.guidance > 1 else 1

    def in_words(self) -> str:
        """Return it for people, as ``12 steps, guidance 2``."""
        found = f"{self.steps} steps, "
        found += f"guidance {self.guidance:g}" if self.guidance > 1 else "without guidance"
        if self.distilled_guidance is not None:
            found += f", {self.distilled_guidance:g} as the network's guidance input"
        return found
