"""SD3 and SD3.5: rectified flow, two CLIPs and T5, codec shift and scale.

Shapes: ``B`` images, ``C H W`` latents, ``L`` tokens of both CLIPs and then of T5.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from atelier.config.model import ModelParams
from atelier.models import pipelines
from atelier.models.denoiser import Condition
from atelier.models.pipelines import PipelineDenoiser
from atelier.models.processes import Process, RectifiedFlow

_BLOCK = "JointTransformerBlock"
_TIMES = 1000  # the transformer reads times in [0, 1000]


class SD3(PipelineDenoiser):
    """An SD3 pipeline behind the ``Denoiser`` protocol."""

    process: Process = RectifiedFlow()

    def __init__(self, pipeline: StableDiffusion3Pipeline, *, text_tokens: int) -> None:
        codec = pipeline.vae.config
        scales = (codec.scaling_factor, codec.shift_factor, text_tokens)
        super().__init__(pipeline, text_tokens, f"sd3 {scales}")

    def _take(self, network: Any) -> None:
        super()._take(network)
        network._repeated_blocks = [_BLOCK]  # diffusers names none, for torch.compile
        # What the pipeline asks a network for where it is made with one.
        self._pipeline.default_sample_size = network.config.sample_size
        self._pipeline.patch_size = network.config.patch_size

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return ``tokens`` ``[B, L, D]`` and ``pooled`` ``[B, P]``.

        Tokens are the last hidden states but one of both CLIPs, side by side and filled up
        with zeros to T5's width, and then T5's; pooled are both CLIPs' summaries (Esser et
        al. 2024, arXiv:2403.03206, App. B.3). The CLIPs see their first 77 tokens, as the
        model was trained; nothing is lost by it, since T5 reads the whole prompt.
        """
        pipeline, texts = self._pipeline, list(prompts)
        ids = pipelines.token_ids(pipeline.tokenizer_3, texts, self.token_budget)
        t5 = pipeline.text_encoder_3(ids.to(pipeline.text_encoder_3.device))[0].float()
        read = [self._clip(*reader, texts) for reader in pipelines.readers(pipeline)[:2]]
        clip = torch.cat([hidden for hidden, _ in read], -1)
        clip = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return {
            "tokens": torch.cat([clip, t5], 1),
            "pooled": torch.cat([pooled for _, pooled in read], -1),
        }

    def count_tokens(self, prompt: str) -> int:
        """Return the T5 tokens of ``prompt``, end token included."""
        return len(self._pipeline.tokenizer_3(prompt, truncation=False).input_ids)

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the velocity that the transformer predicts, ``[B, C, H, W]``."""
        dtype = pipelines.floating(self.network)
        predicted: Tensor = self.network(
            hidden_states=noisy.to(dtype),
            timestep=(time * _TIMES).to(torch.promote_types(dtype, torch.float32)),
            encoder_hidden_states=condition["tokens"].to(dtype),
            pooled_projections=condition["pooled"].to(dtype),
            return_dict=False,
        )[0]
        return predicted.to(torch.promote_types(dtype, torch.float32))

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""
        patch = self.network_config.patch_size
        side = patch * (pixels // (patch * self._pipeline.vae_scale_factor))
        return self.network_config.in_channels, side, side

    def _clip(self, tokenizer: Any, encoder: Any, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Last hidden state but one, and summary, of one CLIP."""
        ids = pipelines.token_ids(tokenizer, texts, self._pipeline.tokenizer_max_length)
        output = encoder(ids.to(encoder.device), output_hidden_states=True)
        return output.hidden_states[-2].float(), output.text_embeds.float()


def load(params: ModelParams) -> SD3:
    """Load an SD3 pipeline from a folder or from the hub.

    Raises:
        ArtifactError: The folder is absent or is no SD3 pipeline.
    """
    return pipelines.load(StableDiffusion3Pipeline, "an SD3", params, around)


def around(pipeline: StableDiffusion3Pipeline, params: ModelParams) -> SD3:
    """Return the painter of a pipeline that was loaded."""
    return SD3(pipeline, text_tokens=params.text_tokens)
