"""FLUX: packing, position ids, guidance embedding, codec shift and scale, two text encoders.

Shapes: ``B`` images, ``C H W`` latents, ``L`` tokens of T5.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor

from atelier.config.model import ModelParams
from atelier.models import pipelines
from atelier.models.denoiser import Condition
from atelier.models.processes import Process, RectifiedFlow

# The distilled models were trained with a guidance number as an input. Training and targets
# use 1, "no guidance inside"; sampling has a setting of its own, `distilled_guidance`.
_TRAINING_GUIDANCE = 1.0


class Flux:
    """A FLUX pipeline behind the ``Denoiser`` protocol."""

    component = "transformer"
    process: Process = RectifiedFlow()

    def __init__(self, pipeline: FluxPipeline, *, text_tokens: int) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline
        self.network = pipeline.transformer
        self.network.requires_grad_(False)
        self.token_budget = text_tokens
        codec = pipeline.vae.config
        scales = (codec.scaling_factor, codec.shift_factor, text_tokens)
        self.identity = pipelines.identity(pipeline, f"flux {scales}")

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return ``(z - shift) * scale``, the mean of the codec's distribution."""
        return pipelines.latents(self._pipeline.vae, pixels, **self._scaling())

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return pixels around [-1, 1]."""
        return pipelines.pixels(self._pipeline.vae, latents, **self._scaling())

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return ``tokens`` ``[B, L, D]`` of T5 and ``pooled`` ``[B, P]`` of CLIP.

        CLIP sees its first 77 tokens, as FLUX was trained; nothing is lost by it, since T5
        reads the whole prompt.
        """
        pipeline = self._pipeline
        texts = list(prompts)
        words = pipelines.token_ids(pipeline.tokenizer_2, texts, self.token_budget)
        pieces = pipelines.token_ids(pipeline.tokenizer, texts, pipeline.tokenizer_max_length)
        t5, clip = pipeline.text_encoder_2, pipeline.text_encoder
        return {
            "tokens": t5(words.to(t5.device))[0].float(),
            "pooled": clip(pieces.to(clip.device)).pooler_output.float(),
        }

    def count_tokens(self, prompt: str) -> int:
        """Return the T5 tokens of ``prompt``, end token included."""
        return len(self._pipeline.tokenizer_2(prompt, truncation=False).input_ids)

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the velocity that the transformer predicts, ``[B, C, H, W]``."""
        batch, channels, height, width = noisy.shape
        network = self.network
        dtype = pipelines.floating(network)
        tokens, pooled = condition["tokens"].to(dtype), condition["pooled"].to(dtype)
        guidance = None
        if network.config.guidance_embeds:
            guidance = torch.full((batch,), _TRAINING_GUIDANCE, device=noisy.device)
        packed = FluxPipeline._pack_latents(noisy, batch, channels, height, width).to(dtype)
        predicted = network(
            hidden_states=packed,
            timestep=time.to(dtype),
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=tokens,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=noisy.device, dtype=dtype),
            img_ids=FluxPipeline._prepare_latent_image_ids(
                batch, height // 2, width // 2, noisy.device, dtype
            ),
            return_dict=False,
        )[0]
        # In units of latents: a scale factor of 1 makes the pipeline's pixels our cells.
        unpacked: Tensor = FluxPipeline._unpack_latents(
            predicted, height, width, vae_scale_factor=1
        )
        return unpacked.to(torch.promote_types(dtype, torch.float32))

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        condition: Condition,
        empty: Condition,
        *,
        steps: int,
        guidance: float,
        distilled_guidance: float | None = None,
    ) -> Tensor:
        """Return clean latents from ``noise`` ``[B, C, H, W]`` by the pipeline's own sampler.

        Guidance above 1 is true classifier-free guidance against the empty prompt, two
        passes a step. A distilled model's guidance input is ``distilled_guidance`` in both.
        """
        pipelines.check_distilled(self.network, distilled_guidance)
        batch, channels, height, width = noise.shape
        scale = self._pipeline.vae_scale_factor
        dtype = pipelines.floating(self.network)  # the pipeline casts noise, not embeddings
        guided: dict[str, Any] = {}
        if guidance > 1:
            away = pipelines.guided_against(empty, batch, dtype)
            guided = {**away, "true_cfg_scale": guidance}
        packed = self._pipeline(
            prompt_embeds=condition["tokens"].to(dtype),
            pooled_prompt_embeds=condition["pooled"].to(dtype),
            latents=FluxPipeline._pack_latents(noise, batch, channels, height, width),
            height=height * scale,
            width=width * scale,
            num_inference_steps=steps,
            guidance_scale=distilled_guidance or _TRAINING_GUIDANCE,
            output_type="latent",
            return_dict=False,
            **guided,
        )[0]
        latents: Tensor = FluxPipeline._unpack_latents(
            packed, height, width, vae_scale_factor=1
        )
        return latents.float()

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""
        side = 2 * (pixels // (2 * self._pipeline.vae_scale_factor))
        return self.network.config.in_channels // 4, side, side

    def release_encoders(self) -> None:
        """Drop codec and text encoders from memory."""
        pipelines.release_encoders(self._pipeline)

    def pipeline(self) -> Any:
        """Return the diffusers pipeline around the same weights."""
        return self._pipeline

    def _scaling(self) -> dict[str, float]:
        codec = self._pipeline.vae.config
        return {"shift": codec.shift_factor, "scale": codec.scaling_factor}


def load(params: ModelParams) -> Flux:
    """Load a FLUX pipeline from a folder or from the hub.

    Raises:
        ArtifactError: The folder is absent or is no FLUX pipeline.
    """
    pipeline = pipelines.read(FluxPipeline, "a FLUX", params)
    return Flux(pipeline, text_tokens=params.text_tokens)
