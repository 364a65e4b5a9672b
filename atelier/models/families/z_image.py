"""Z-Image: lists of pictures and captions, time from the clean end, captions as a chat.

Shapes: ``B`` images, ``C H W`` latents, ``L`` tokens of Qwen3, the chat's own included.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ZImagePipeline
from torch import Tensor
from torch.nn.functional import pad

from atelier.config.model import ModelParams
from atelier.models import pipelines
from atelier.models.denoiser import MASK, Condition
from atelier.models.pipelines import PipelineDenoiser
from atelier.models.processes import Process, RectifiedFlow


class ZImage(PipelineDenoiser):
    """A Z-Image pipeline behind the ``Denoiser`` protocol."""

    process: Process = RectifiedFlow()

    def __init__(self, pipeline: ZImagePipeline, *, text_tokens: int) -> None:
        codec = pipeline.vae.config
        chat = pipeline.tokenizer.chat_template
        scales = (codec.scaling_factor, codec.shift_factor, text_tokens, chat)
        super().__init__(pipeline, text_tokens, f"z_image {scales}")

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return ``tokens`` ``[B, L, D]``, Qwen3's last hidden states but one, and ``mask``.

        Padding, which the network never sees, is zeros.
        """
        found, _ = self._pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.token_budget,
        )
        lengths = torch.tensor([len(one) for one in found], device=found[0].device)
        place = torch.arange(self.token_budget, device=found[0].device)
        padded = [pad(one, (0, 0, 0, self.token_budget - len(one))) for one in found]
        return {
            "tokens": torch.stack(padded).float(),
            MASK: (place < lengths[:, None]).float(),
        }

    def count_tokens(self, prompt: str) -> int:
        """Return Qwen3's tokens of the chat that ``prompt`` becomes."""
        tokenizer = self._pipeline.tokenizer
        return len(tokenizer(pipelines.chat(tokenizer, prompt, thinking=True)).input_ids)

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the velocity that the transformer predicts, ``[B, C, H, W]``.

        The network was trained to go from noise to picture: its time is ``1 - t`` and its
        answer the velocity with the other sign.
        """
        dtype = pipelines.floating(self.network)
        pictures = noisy.to(dtype).unsqueeze(2)  # of one frame each
        predicted = self.network(
            list(pictures.unbind(0)),
            1 - time,
            _captions(condition, dtype),
            return_dict=False,
        )[0]
        found = -torch.stack(list(predicted)).squeeze(2)
        return found.to(torch.promote_types(dtype, torch.float32))

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""
        side = 2 * (pixels // (2 * self._pipeline.vae_scale_factor))
        return self.network_config.in_channels, side, side

    def _prompted(self, condition: Condition, dtype: torch.dtype) -> dict[str, Any]:
        return {"prompt_embeds": _captions(condition, dtype)}

    def _guided_by(self, guidance: float, distilled: float | None) -> dict[str, float]:
        # The pipeline counts from the prompt's own prediction: 0 is off there, 1 is off here.
        return {"guidance_scale": max(guidance - 1, 0.0)}

    def _noise(self, noise: Tensor, dtype: torch.dtype) -> Tensor:
        return noise.to(torch.promote_types(dtype, torch.float32))  # it refuses any other


def load(params: ModelParams) -> ZImage:
    """Load a Z-Image pipeline from a folder or from the hub.

    Raises:
        ArtifactError: The folder is absent or is no Z-Image pipeline.
    """
    return pipelines.load(ZImagePipeline, "a Z-Image", params, around)


def around(pipeline: ZImagePipeline, params: ModelParams) -> ZImage:
    """Return the painter of a pipeline that was loaded."""
    return ZImage(pipeline, text_tokens=params.text_tokens)


def _captions(condition: Condition, dtype: torch.dtype) -> list[Tensor]:
    """The tokens of each prompt without its padding, ``[L', D]``."""
    pairs = zip(condition["tokens"].to(dtype), condition[MASK] > 0, strict=True)
    return [tokens[mask] for tokens, mask in pairs]
