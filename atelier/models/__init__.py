"""What paints: one file a family, all its quirks inside.

Shapes: ``B`` images, ``C H W`` latents. Outside this wing latents are float32, time is in
[0, 1] and every family answers the same protocol, ``Denoiser``.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from atelier.errors import ParamsError
from atelier.models.processes import Process

if TYPE_CHECKING:
    from atelier.params import ModelParams

# What the text encoders make of prompts: tensors by name, prompts along dimension 0.
# Only the family that made it looks inside.
Condition = dict[str, Tensor]


class Denoiser(Protocol):
    """A painter: its network, its process, and the way between pixels, words and tensors."""

    network: nn.Module  # float32 or half; LoRA adapters are added to it
    process: Process
    identity: str  # names codec, encoders and their weights; keys the caches
    token_budget: int  # prompt tokens that the narrowest encoder reads

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return latents, float32 ``[B, C, H, W]``, of pixels in [-1, 1], ``[B, 3, H, W]``."""

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return pixels in [-1, 1], float32 ``[B, 3, H, W]``."""

    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return the condition of each prompt; every tensor has one row a prompt."""

    def count_tokens(self, prompt: str) -> int:
        """Return how much of ``token_budget`` the prompt needs."""

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the network's output at ``noisy``, float32 ``[B, C, H, W]``."""

    def release_encoders(self) -> None:
        """Drop codec and text encoders from memory; training needs only the network."""

    def pipeline(self) -> Any:
        """Return the diffusers pipeline around the same weights, for sampling and saving."""


def load(params: "ModelParams") -> Denoiser:
    """Load the painter that ``model:`` names.

    Raises:
        ParamsError: The family cannot be loaded here; says what is missing.
        ArtifactError: The folder is absent or is no model of that family.
    """
    if params.family == "flux":
        from atelier.models import flux

        return flux.load(params)
    raise ParamsError(
        f"model.family {params.family!r} has no loader yet (atelier/models/{params.family}.py); "
        "use a profile whose family is 'flux', such as `profile: starter`"
    )
