"""Chroma: FLUX's blocks and packing, T5 alone, a mask over all padding tokens but one.

Shapes: ``B`` images, ``C H W`` latents, ``L`` tokens of T5.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import ChromaPipeline
from torch import Tensor

from atelier.config.model import ModelParams
from atelier.models import pipelines
from atelier.models.denoiser import MASK, Condition, sent
from atelier.models.pipelines import PipelineDenoiser
from atelier.models.processes import Process, RectifiedFlow


class Chroma(PipelineDenoiser):
    """A Chroma pipeline behind the ``Denoiser`` protocol."""

    process: Process = RectifiedFlow()

    def __init__(self, pipeline: ChromaPipeline, *, text_tokens: int) -> None:
        codec = pipeline.vae.config
        scales = (codec.scaling_factor, codec.shift_factor, text_tokens)
        super().__init__(pipeline, text_tokens, f"chroma {scales}")

    def _take(self, network: Any) -> None:
        super()._take(network)
        blocks = (network.transformer_blocks, network.single_transformer_blocks)
        for block in (one for kind in blocks for one in kind):
            block.attn.register_forward_pre_hook(_masking_keys, with_kwargs=True)

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return ``tokens`` ``[B, L, D]`` of T5 and ``mask`` ``[B, L]``.

        T5 reads no padding. The network was trained to read a prompt's tokens and the first
        padding token after them.
        """
        tokens, _, mask, *_ = self._pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.token_budget,
        )
        return {"tokens": tokens.float(), MASK: mask.float()}

    def count_tokens(self, prompt: str) -> int:
        """Return the T5 tokens of ``prompt``, end token included."""
        return len(self._pipeline.tokenizer(prompt, truncation=False).input_ids)

    def predict(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the velocity that the transformer predicts, ``[B, C, H, W]``."""
        batch, _, height, width = noisy.shape
        dtype = pipelines.floating(self.network)
        hidden, tokens = self._packed(noisy).to(dtype), condition["tokens"].to(dtype)
        pixels = torch.ones(hidden.shape[:2], dtype=torch.bool, device=noisy.device)
        mask = torch.cat([_reads(condition), pixels], 1)
        places = ChromaPipeline._prepare_latent_image_ids(
            batch, height // 2, width // 2, torch.device("cpu"), dtype
        )
        with _masked_when_checkpointed(self.network, mask):
            predicted = self.network(
                hidden_states=hidden,
                timestep=time.to(dtype),
                encoder_hidden_states=tokens,
                txt_ids=torch.zeros(tokens.shape[1], 3, device=noisy.device, dtype=dtype),
                img_ids=sent(places, noisy.device),
                attention_mask=mask,
                return_dict=False,
            )[0]
        unpacked = self._unpacked(predicted, height, width)
        return unpacked.to(torch.promote_types(dtype, torch.float32))

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """Return ``(C, H, W)`` of a square picture's latents."""
        side = 2 * (pixels // (2 * self._pipeline.vae_scale_factor))
        return self.network_config.in_channels // 4, side, side

    def _prompted(self, condition: Condition, dtype: torch.dtype) -> dict[str, Any]:
        # A mask of truth values: diffusers makes one of floats from a prompt, which attention
        # adds up and does not obey (huggingface/diffusers issue 12116).
        return {
            "prompt_embeds": condition["tokens"].to(dtype),
            "prompt_attention_mask": _reads(condition),
        }

    def _packed(self, latents: Tensor) -> Tensor:
        packed: Tensor = ChromaPipeline._pack_latents(latents, *latents.shape)
        return packed

    def _unpacked(self, latents: Tensor, height: int, width: int) -> Tensor:
        # In units of latents: a scale factor of 1 makes the pipeline's pixels our cells.
        unpacked: Tensor = ChromaPipeline._unpack_latents(
            latents, height, width, vae_scale_factor=1
        )
        return unpacked


def load(params: ModelParams) -> Chroma:
    """Load a Chroma pipeline from a folder or from the hub.

    Raises:
        ArtifactError: The folder is absent or is no Chroma pipeline.
    """
    return pipelines.load(ChromaPipeline, "a Chroma", params, around)


def around(pipeline: ChromaPipeline, params: ModelParams) -> Chroma:
    """Return the painter of a pipeline that was loaded."""
    return Chroma(pipeline, text_tokens=params.text_tokens)


def _reads(condition: Condition) -> Tensor:
    """Which tokens the network may read, truth values ``[B, L]``."""
    return condition[MASK] > 0


def _masking_keys(attention: Any, given: Any, named: dict[str, Any]) -> tuple[Any, Any]:
    """Leave padding something to read: what it reads goes nowhere.

    diffusers masks its rows, too. Of a row without any key some kernels make NaN, which then
    stands among the masked values, and 0 times NaN is NaN.
    """
    del attention
    mask = named.get("attention_mask")
    if mask is None or mask.dtype != torch.bool:
        return given, named
    return given, {**named, "attention_mask": mask.any(-2, keepdim=True)}


@contextlib.contextmanager
def _masked_when_checkpointed(network: Any, mask: Tensor) -> Iterator[None]:
    """Inside, checkpointed single blocks get the mask, which diffusers hands to none of them.

    Without it a training with gradient checkpointing would read the padding, and one without
    would not.
    """
    if not network.gradient_checkpointing:
        yield
        return
    checkpointed = network._gradient_checkpointing_func
    singles = {id(block) for block in network.single_transformer_blocks}

    def masked(block: Any, *given: Any) -> Any:
        return checkpointed(block, *given, *([mask] if id(block) in singles else []))

    network._gradient_checkpointing_func = masked
    try:
        yield
    finally:
        network._gradient_checkpointing_func = checkpointed
