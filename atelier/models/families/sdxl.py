"""SDXL: two CLIP encoders, sizes as a condition, ε- and v-prediction, codec scale.

Shapes: ``B`` images, ``C H W`` latents, ``L`` = 77 tokens of CLIP for each of ``K`` chunks.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from atelier.config.model import ModelParams
from atelier.errors import ArtifactError
from atelier.models import pipelines, prompt_chunks
from atelier.models.denoiser import FRAME, Condition, sent
from atelier.models.pipelines import PipelineDenoiser
from atelier.models.processes import Process, VariancePreserving

_PREDICTS: dict[str, Literal["epsilon", "v"]] = {"epsilon": "epsilon", "v_prediction": "v"}
_PIXELS_STEP = 8  # the pipeline refuses sizes that are no multiple of it


class SDXL(PipelineDenoiser):
    """An SDXL pipeline behind the ``Denoiser`` protocol."""

    component = "unet"

    def __init__(self, pipeline: StableDiffusionXLPipeline, *, text_chunks: int) -> None:
        zeros = pipeline.config.force_zeros_for_empty_prompt
        codec = (pipeline.vae.config.scaling_factor, str(pipeline.vae.dtype))
        budget, said = prompt_chunks.budget(text_chunks), f"sdxl {codec} {zeros} {text_chunks}"
        super().__init__(pipeline, budget, said)
        self._steps = _process(pipeline.scheduler)
        self.process: Process = self._steps
        self._chunks = text_chunks

    def _take(self, network: Any) -> None:
        super()._take(network)
        # What the pipeline asks a network for where it is made with one.
        self._pipeline.default_sample_size = network.config.sample_size

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return ``tokens`` ``[B, L, D]`` and ``pooled`` ``[B, P]``.

        Tokens are the last hidden states but one of both encoders, side by side; pooled is
        the second encoder's (Podell et al. 2023, arXiv:2307.01952, Sec. 2.1). A prompt of
        several chunks is read chunk by chunk, put together along L; all prompts have as many
        chunks, and the summary is that of the first. The empty prompt
        is all zeros where the pipeline says so, as SDXL's is: it is what the pipeline itself
        guides against, so dropped captions in training must look the same.
        """
        ids = [
            torch.stack(
                [prompt_chunks.tokens(tokenizer, prompt, self._chunks) for prompt in prompts]
            )
            for tokenizer, _ in pipelines.readers(self._pipeline)
        ]
        first, second = (
            encoder(own.flatten(0, 1).to(encoder.device), output_hidden_states=True)
            for own, (_, encoder) in zip(ids, pipelines.readers(self._pipeline), strict=True)
        )
        hidden = torch.cat([out.hidden_states[-2].float() for out in (first, second)], -1)
        condition = {
            "tokens": hidden.reshape(len(prompts), -1, hidden.shape[-1]),
            "pooled": second.text_embeds.float()[:: self._chunks].clone(),
        }
        if self._pipeline.config.force_zeros_for_empty_prompt:
            empty = torch.tensor([not prompt for prompt in prompts])
            for tensor in condition.values():
                tensor[empty.to(tensor.device)] = 0
        return condition

    def count_tokens(self, prompt: str) -> int:
        """Return the tokens of ``prompt``, begin and end included, where it has the most.

        A phrase that goes to the next chunk as a whole costs what it leaves empty.
        """
        return max(
            prompt_chunks.count(tokenizer, prompt)
            for tokenizer, _ in pipelines.readers(self._pipeline)
        )

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return ε or v as the UNet predicts it, ``[B, C, H, W]``."""
        dtype = pipelines.floating(self.network)
        predicted: Tensor = self.network(
            noisy.to(dtype),
            self._steps.step(time),
            encoder_hidden_states=condition["tokens"].to(dtype),
            added_cond_kwargs={
                "text_embeds": condition["pooled"].to(dtype),
                "time_ids": self._sizes(noisy, condition),
            },
            return_dict=False,
        )[0]
        return predicted.to(torch.promote_types(dtype, torch.float32))

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""
        scale = self._pipeline.vae_scale_factor
        step = max(scale, _PIXELS_STEP)
        side = pixels // step * step // scale
        return self.network_config.in_channels, side, side

    def _sizes(self, latents: Tensor, condition: Condition) -> Tensor:
        """``time_ids`` ``[B, 6]``: original size, crop's corner, target size, in pixels.

        Where the condition does not tell the picture's own frame, all say what is painted,
        uncropped, as the pipeline says while it samples (Podell et al. 2023,
        arXiv:2307.01952, Sec. 2.2).
        """
        scale = self._pipeline.vae_scale_factor
        height, width = latents.shape[2] * scale, latents.shape[3] * scale
        sides = torch.tensor([[height, width]], dtype=torch.float32).expand(len(latents), -1)
        target = sent(sides, latents.device)
        frame = condition.get(FRAME, torch.cat([target, torch.zeros_like(target)], 1))
        return torch.cat([frame.to(target), target], 1)


def load(params: ModelParams) -> SDXL:
    """Load an SDXL pipeline from a folder or from the hub.

    SDXL's own codec overflows in float16 and says so by ``force_upcast``: it then stays in
    float32 whatever the precision of the rest. The repaired one, which does not, obeys
    ``model.dtype``.

    Raises:
        ArtifactError: The folder is absent or is no SDXL pipeline.
    """

    def painter(pipeline: StableDiffusionXLPipeline, params: ModelParams) -> SDXL:
        if not pipeline.vae.config.force_upcast:
            pipeline.vae.to(getattr(torch, params.dtype))
        return around(pipeline, params)

    return pipelines.load(
        StableDiffusionXLPipeline, "an SDXL", params, painter, codec_dtype=torch.float32
    )


def around(pipeline: StableDiffusionXLPipeline, params: ModelParams) -> SDXL:
    """Return the painter of a pipeline that was loaded."""
    return SDXL(pipeline, text_chunks=params.text_chunks)


def _process(scheduler: Any) -> VariancePreserving:
    """The noise that the pipeline's scheduler was configured for, in float32."""
    predicts = scheduler.config.prediction_type
    if predicts not in _PREDICTS or not hasattr(scheduler, "alphas_cumprod"):
        raise ArtifactError(
            f"scheduler/scheduler_config.json: {type(scheduler).__name__} with prediction_type "
            f"{predicts!r} is no discrete variance-preserving process; prediction_type should "
            f"be one of {sorted(_PREDICTS)}"
        )
    return VariancePreserving(scheduler.alphas_cumprod.float(), _PREDICTS[predicts])
