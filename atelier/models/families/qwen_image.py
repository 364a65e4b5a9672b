"""Qwen-Image: a codec of videos with per-channel mean and spread, masked tokens of Qwen2.5-VL.

Shapes: ``B`` images, ``C H W`` latents, ``L`` tokens of a prompt and of the template after it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import Tensor
from torch.nn.functional import pad

from atelier.config.model import ModelParams
from atelier.models import pipelines
from atelier.models.denoiser import MASK, Condition
from atelier.models.pipelines import PipelineDenoiser
from atelier.models.processes import Process, RectifiedFlow


class QwenImage(PipelineDenoiser):
    """A Qwen-Image pipeline behind the ``Denoiser`` protocol."""

    process: Process = RectifiedFlow()

    def __init__(self, pipeline: QwenImagePipeline, *, text_tokens: int) -> None:
        codec = pipeline.vae.config
        said = (list(codec.latents_mean), list(codec.latents_std), text_tokens)
        super().__init__(pipeline, text_tokens, f"qwen_image {said}")
        self._mean, self._spread = (
            torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            for values in (codec.latents_mean, codec.latents_std)
        )

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return ``tokens`` ``[B, L, D]``, Qwen2.5-VL's last hidden states, and ``mask``.

        The template's tokens before the prompt are left out, as the network was trained.
        """
        tokens, mask = self._pipeline.encode_prompt(
            list(prompts), max_sequence_length=self.token_budget
        )
        if mask is None:  # all are as long as the longest
            mask = torch.ones(tokens.shape[:2], device=tokens.device)
        more = self.token_budget - tokens.shape[1]
        return {
            "tokens": pad(tokens, (0, 0, 0, more)).float(),
            MASK: pad(mask, (0, more)).float(),
        }

    def count_tokens(self, prompt: str) -> int:
        """Return the tokens of ``prompt`` and of the template after it."""
        pipeline = self._pipeline
        text = pipeline.prompt_template_encode.format(prompt)
        before: int = pipeline.prompt_template_encode_start_idx
        return len(pipeline.tokenizer(text).input_ids) - before

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the velocity that the transformer predicts, ``[B, C, H, W]``."""
        batch, _, height, width = noisy.shape
        dtype = pipelines.floating(self.network)
        predicted = self.network(
            hidden_states=self._packed(noisy).to(dtype),
            timestep=time.to(dtype),
            encoder_hidden_states=condition["tokens"].to(dtype),
            encoder_hidden_states_mask=condition[MASK] > 0,
            img_shapes=[[(1, height // 2, width // 2)]] * batch,
            return_dict=False,
        )[0]
        unpacked = self._unpacked(predicted, height, width)
        return unpacked.to(torch.promote_types(dtype, torch.float32))

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""
        side = 2 * (pixels // (2 * self._pipeline.vae_scale_factor))
        return self.network_config.in_channels // 4, side, side

    def _prompted(self, condition: Condition, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "prompt_embeds": condition["tokens"].to(dtype),
            "prompt_embeds_mask": condition[MASK] > 0,
        }

    def _guided_by(self, guidance: float, distilled: float | None) -> dict[str, float]:
        # The pipeline brings what guidance gives back to the length of the prompt's own
        # prediction, patch by patch. It cuts prompts at 512 tokens unless it is told otherwise.
        return {"true_cfg_scale": guidance, "max_sequence_length": self.token_budget}

    def _encoded(self, pixels: Tensor) -> Tensor:
        return super()._encoded(pixels.unsqueeze(2))  # a video of one frame

    def _decoded(self, latents: Tensor) -> Tensor:
        return super()._decoded(latents.unsqueeze(2)).squeeze(2)

    def _to_latents(self, encoded: Tensor) -> Tensor:
        frame = encoded.squeeze(2)
        return (frame - self._mean.to(frame)) / self._spread.to(frame)

    def _to_codec(self, latents: Tensor) -> Tensor:
        return latents * self._spread.to(latents) + self._mean.to(latents)

    def _packed(self, latents: Tensor) -> Tensor:
        packed: Tensor = QwenImagePipeline._pack_latents(latents, *latents.shape)
        return packed

    def _unpacked(self, latents: Tensor, height: int, width: int) -> Tensor:
        # In units of latents: a scale factor of 1 makes the pipeline's pixels our cells.
        unpacked: Tensor = QwenImagePipeline._unpack_latents(
            latents, height, width, vae_scale_factor=1
        )
        return unpacked.squeeze(2)


def load(params: ModelParams) -> QwenImage:
    """Load a Qwen-Image pipeline from a folder or from the hub.

    Raises:
        ArtifactError: The folder is absent or is no Qwen-Image pipeline.
    """
    return pipelines.load(QwenImagePipeline, "a Qwen-Image", params, around)


def around(pipeline: QwenImagePipeline, params: ModelParams) -> QwenImage:
    """Return the painter of a pipeline that was loaded."""
    return QwenImage(pipeline, text_tokens=params.text_tokens)
