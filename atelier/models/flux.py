"""FLUX: packing, position ids, guidance embedding, codec shift and scale, two text encoders.

Shapes: ``B`` images, ``C H W`` latents, ``L`` tokens of T5.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor

from atelier.errors import ArtifactError, ParamsError
from atelier.models import Condition, quiet
from atelier.models.processes import Process, RectifiedFlow
from atelier.params import ModelParams

# The distilled models were trained with a guidance number as an input. Training and targets
# use 1, "no guidance inside"; sampling uses what the pipeline is asked for.
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
        self.identity = _identity(pipeline, text_tokens)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return ``(z - shift) * scale``, the mean of the codec's distribution."""
        codec = self._pipeline.vae
        encoded = codec.encode(pixels.to(dtype=codec.dtype, device=codec.device))
        tiny = hasattr(encoded, "latents")  # AutoencoderTiny and PatchPCA have no distribution
        latents: Tensor = encoded.latents if tiny else encoded.latent_dist.mode()
        scaled: Tensor = latents.float() - codec.config.shift_factor
        return scaled * float(codec.config.scaling_factor)

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return pixels around [-1, 1]."""
        codec = self._pipeline.vae
        unscaled = latents / codec.config.scaling_factor + codec.config.shift_factor
        pixels: Tensor = codec.decode(unscaled.to(codec.dtype)).sample
        return pixels.float()

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return ``tokens`` ``[B, L, D]`` of T5 and ``pooled`` ``[B, P]`` of CLIP.

        CLIP sees its first 77 tokens, as FLUX was trained; nothing is lost by it, since T5
        reads the whole prompt.
        """
        pipeline = self._pipeline
        words = pipeline.tokenizer_2(
            list(prompts),
            padding="max_length",
            max_length=self.token_budget,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        pieces = pipeline.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=pipeline.tokenizer_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
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
        dtype = _floating(network)
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
    ) -> Tensor:
        """Return clean latents from ``noise`` ``[B, C, H, W]`` by the pipeline's own sampler.

        Guidance above 1 is true classifier-free guidance against the empty prompt, two
        passes a step; a distilled model's guidance input stays at its training value.
        """
        batch, channels, height, width = noise.shape
        scale = self._pipeline.vae_scale_factor
        guided = {}
        if guidance > 1:
            guided = {
                "negative_prompt_embeds": empty["tokens"].expand(batch, -1, -1),
                "negative_pooled_prompt_embeds": empty["pooled"].expand(batch, -1),
                "true_cfg_scale": guidance,
            }
        packed = self._pipeline(
            prompt_embeds=condition["tokens"],
            pooled_prompt_embeds=condition["pooled"],
            latents=FluxPipeline._pack_latents(noise, batch, channels, height, width),
            height=height * scale,
            width=width * scale,
            num_inference_steps=steps,
            guidance_scale=_TRAINING_GUIDANCE,
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
        self._pipeline.register_modules(vae=None, text_encoder=None, text_encoder_2=None)

    def pipeline(self) -> Any:
        """Return the diffusers pipeline around the same weights."""
        return self._pipeline


def load(params: ModelParams) -> Flux:
    """Load a FLUX pipeline from a folder or from the hub.

    Raises:
        ArtifactError: The folder is absent or is no FLUX pipeline.
    """
    folder = Path(params.source)
    parts: dict[str, Any] = {}
    if _is_patch_pca(folder):
        from atelier.models.codec import PatchPCA

        # A pipeline folder names classes; diffusers imports only its own from it.
        parts["vae"] = PatchPCA.from_pretrained(
            folder / "vae", torch_dtype=getattr(torch, params.dtype)
        )
    elif not folder.is_dir() and params.revision is None:
        raise ArtifactError(
            f"model.source {params.source!r} is no folder here, and without model.revision it "
            "is no hub id; train a small base with `python -m tasks base`, or name a commit"
        )
    with quiet():
        try:
            pipeline = FluxPipeline.from_pretrained(
                params.source,
                revision=params.revision,
                dtype=getattr(torch, params.dtype),
                use_safetensors=True,
                **parts,
            )
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"model.source {params.source!r} cannot be loaded as a FLUX pipeline: {error}"
            ) from None
    _check_tokenizers(pipeline, params.source)
    _realign(pipeline)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Flux(pipeline.to(device), text_tokens=params.text_tokens)


def _is_patch_pca(folder: Path) -> bool:
    config = folder / "vae" / "config.json"
    return config.is_file() and '"PatchPCA"' in config.read_text(encoding="utf-8")


def _check_tokenizers(pipeline: FluxPipeline, source: str) -> None:
    """Offline and uncached, transformers returns an almost empty tokenizer without a word."""
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        expected = encoder.config.vocab_size
        if len(tokenizer) < 0.9 * expected:
            raise ParamsError(
                f"model.source {source!r}: {type(tokenizer).__name__} has {len(tokenizer)} "
                f"tokens, its encoder expects {expected}; the tokenizer files are missing"
            )


def _realign(pipeline: FluxPipeline) -> None:
    """Copy weights out of the file's unaligned views: results else differ by ~1e-6 a load."""
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2")
    for module in (getattr(pipeline, part) for part in parts):
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
        module.eval()


def _floating(network: torch.nn.Module) -> torch.dtype:
    return next(p.dtype for p in network.parameters() if p.is_floating_point())


def _identity(pipeline: FluxPipeline, text_tokens: int) -> str:
    """Hash what decides latents and embeddings: codec, encoders, vocabularies, scales."""
    codec = pipeline.vae.config
    scales = (codec.scaling_factor, codec.shift_factor, text_tokens)
    digest = hashlib.sha256(f"flux {scales}".encode())
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    for module in (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
