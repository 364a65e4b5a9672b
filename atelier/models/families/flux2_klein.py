"""FLUX.2 klein: latents patchified and whitened by the codec, four-axis positions, Qwen3.

Shapes: ``B`` images; ``C H W`` latents, of which each cell holds 2 x 2 of the codec's; ``L``
tokens of Qwen3, the chat's own included.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import Flux2KleinPipeline
from torch import Tensor

from atelier.config.model import ModelParams
from atelier.errors import ParamsError
from atelier.models import pipelines
from atelier.models.denoiser import Condition, sent
from atelier.models.pipelines import PipelineDenoiser
from atelier.models.processes import Process, RectifiedFlow

_KEPT = ("bn", "post_quant_conv")  # of the codec; without any weight it would have no device


class Flux2Klein(PipelineDenoiser):
    """A FLUX.2-klein pipeline behind the ``Denoiser`` protocol."""

    process: Process = RectifiedFlow()

    def __init__(self, pipeline: Flux2KleinPipeline, *, text_tokens: int) -> None:
        said = (pipeline.vae.config.batch_norm_eps, text_tokens)
        super().__init__(
            pipeline, text_tokens, f"flux2_klein {said} {pipeline.tokenizer.chat_template}"
        )

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return ``tokens`` ``[B, L, D]``: three of Qwen3's hidden states, side by side.

        The network reads padding like any token, as it was trained.
        """
        tokens, _ = self._pipeline.encode_prompt(
            list(prompts), max_sequence_length=self.token_budget
        )
        return {"tokens": tokens.float()}

    def count_tokens(self, prompt: str) -> int:
        """Return Qwen3's tokens of the chat that ``prompt`` becomes."""
        tokenizer = self._pipeline.tokenizer
        return len(tokenizer(pipelines.chat(tokenizer, prompt, thinking=False)).input_ids)

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the velocity that the transformer predicts, ``[B, C, H, W]``."""
        dtype, device = pipelines.floating(self.network), noisy.device
        tokens, latents = condition["tokens"].to(dtype), noisy.to(dtype)
        predicted: Tensor = self.network(
            hidden_states=Flux2KleinPipeline._pack_latents(latents),
            timestep=time.to(dtype),
            guidance=None,
            encoder_hidden_states=tokens,
            # Four axes: reference picture, row, column, and place in the text.
            txt_ids=sent(Flux2KleinPipeline._prepare_text_ids(tokens), device),
            img_ids=sent(Flux2KleinPipeline._prepare_latent_ids(latents), device),
            return_dict=False,
        )[0]
        found = predicted.transpose(1, 2).reshape(noisy.shape)
        return found.to(torch.promote_types(dtype, torch.float32))

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
        """Return clean latents as ``PipelineDenoiser.sample`` does.

        Raises:
            ParamsError: The base is a distilled one, whose pipeline ignores guidance.
        """
        if guidance > 1 and self._pipeline.config.is_distilled:
            raise ParamsError(
                f"guidance should be 1, is {guidance:g}: this base is distilled, and its "
                "sampler ignores guidance; FLUX.2-klein-base is not"
            )
        return super().sample(
            noise,
            condition,
            empty,
            steps=steps,
            guidance=guidance,
            distilled_guidance=distilled_guidance,
        )

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""
        side = pixels // (2 * self._pipeline.vae_scale_factor)
        return self.network_config.in_channels, side, side

    def release_encoders(self, *, texts: bool = True) -> None:
        """Drop the text encoder, and the codec except its statistics, which sampling reads."""
        codec = copy.copy(self._pipeline.vae)  # other references to the codec stay whole
        codec._modules = {name: codec._modules[name] for name in _KEPT}
        super().release_encoders(texts=texts)
        self._pipeline.register_modules(vae=codec)

    def _prompted(self, condition: Condition, dtype: torch.dtype) -> dict[str, Any]:
        return {"prompt_embeds": condition["tokens"].to(dtype)}

    def _to_latents(self, encoded: Tensor) -> Tensor:
        patches: Tensor = Flux2KleinPipeline._patchify_latents(encoded)
        mean, spread = self._whitening()
        return (patches - mean) / spread

    def _to_codec(self, latents: Tensor) -> Tensor:
        mean, spread = self._whitening()
        found: Tensor = Flux2KleinPipeline._unpatchify_latents(latents * spread + mean)
        return found

    def _unpacked(self, latents: Tensor, height: int, width: int) -> Tensor:
        # The pipeline gives the codec's latents, also where it is asked for its own.
        del height, width
        return self._to_latents(latents.to(torch.promote_types(latents.dtype, torch.float32)))

    def _pixels(self, height: int, width: int) -> tuple[int, int]:
        scale = 2 * self._pipeline.vae_scale_factor
        return height * scale, width * scale

    def _whitening(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of patches, ``[1, C, 1, 1]``."""
        codec = self._pipeline.vae
        spread = (codec.bn.running_var.float() + codec.config.batch_norm_eps).sqrt()
        return codec.bn.running_mean.float().view(1, -1, 1, 1), spread.view(1, -1, 1, 1)


def load(params: ModelParams) -> Flux2Klein:
    """Load a FLUX.2-klein pipeline from a folder or from the hub.

    Raises:
        ArtifactError: The folder is absent or is no FLUX.2-klein pipeline.
    """
    return pipelines.load(Flux2KleinPipeline, "a FLUX.2 klein", params, around)


def around(pipeline: Flux2KleinPipeline, params: ModelParams) -> Flux2Klein:
    """Return the painter of a pipeline that was loaded."""
    return Flux2Klein(pipeline, text_tokens=params.text_tokens)
