"""FLUX: packing, position ids, guidance embedding, codec shift and scale, two text encoders.

Shapes: ``B`` images, ``C H W`` latents, ``L`` tokens of T5.
"""

from collections.abc import Sequence

import torch
from diffusers import FluxPipeline
from torch import Tensor

from atelier.config.model import ModelParams
from atelier.models import pipelines
from atelier.models.denoiser import Condition, sent
from atelier.models.pipelines import PipelineDenoiser
from atelier.models.processes import Process, RectifiedFlow

# The distilled models were trained with a guidance number as an input. Training and targets
# use 1, "no guidance inside"; sampling has a setting of its own, `distilled_guidance`.
_TRAINING_GUIDANCE = 1.0


class Flux(PipelineDenoiser):
    """A FLUX pipeline behind the ``Denoiser`` protocol."""

    process: Process = RectifiedFlow()

    def __init__(self, pipeline: FluxPipeline, *, text_tokens: int) -> None:
        codec = pipeline.vae.config
        scales = (codec.scaling_factor, codec.shift_factor, text_tokens)
        super().__init__(pipeline, text_tokens, f"flux {scales}")

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
        batch, _, height, width = noisy.shape
        network = self.network
        dtype = pipelines.floating(network)
        tokens, pooled = condition["tokens"].to(dtype), condition["pooled"].to(dtype)
        guidance = None
        if network.config.guidance_embeds:
            guidance = torch.full((batch,), _TRAINING_GUIDANCE, device=noisy.device)
        places = FluxPipeline._prepare_latent_image_ids(
            batch, height // 2, width // 2, torch.device("cpu"), dtype
        )
        predicted = network(
            hidden_states=self._packed(noisy).to(dtype),
            timestep=time.to(dtype),
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=tokens,
            txt_ids=torch.zeros(tokens.shape[1], 3, device=noisy.device, dtype=dtype),
            img_ids=sent(places, noisy.device),
            return_dict=False,
        )[0]
        unpacked = self._unpacked(predicted, height, width)
        return unpacked.to(torch.promote_types(dtype, torch.float32))

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""
        side = 2 * (pixels // (2 * self._pipeline.vae_scale_factor))
        return self.network_config.in_channels // 4, side, side

    def _guided_by(self, guidance: float, distilled: float | None) -> dict[str, float]:
        # True classifier-free guidance, apart from the guidance input of a distilled model.
        inside = {"guidance_scale": distilled or _TRAINING_GUIDANCE}
        return inside | ({"true_cfg_scale": guidance} if guidance > 1 else {})

    def _packed(self, latents: Tensor) -> Tensor:
        packed: Tensor = FluxPipeline._pack_latents(latents, *latents.shape)
        return packed

    def _unpacked(self, latents: Tensor, height: int, width: int) -> Tensor:
        # In units of latents: a scale factor of 1 makes the pipeline's pixels our cells.
        unpacked: Tensor = FluxPipeline._unpack_latents(
            latents, height, width, vae_scale_factor=1
        )
        return unpacked


def load(params: ModelParams) -> Flux:
    """Load a FLUX pipeline from a folder or from the hub.

    Raises:
        ArtifactError: The folder is absent or is no FLUX pipeline.
    """
    return pipelines.load(FluxPipeline, "a FLUX", params, around)


def around(pipeline: FluxPipeline, params: ModelParams) -> Flux:
    """Return the painter of a pipeline that was loaded."""
    return Flux(pipeline, text_tokens=params.text_tokens)
