"""Diffusers pipelines: loading, and what all families' denoisers share."""

import hashlib
import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atelier import out_of_memory
from atelier.config.model import ModelParams
from atelier.errors import ArtifactError, ParamsError
from atelier.models import quantization
from atelier.models.denoiser import Condition, quiet
from atelier.models.files import mapped_files

_READERS = [
    ("tokenizer", "text_encoder"),
    ("tokenizer_2", "text_encoder_2"),
    ("tokenizer_3", "text_encoder_3"),
]


class PipelineDenoiser:
    """A diffusers pipeline behind the ``Denoiser`` protocol, except texts and prediction.

    A family names its ``component`` and ``process``, and implements ``encode_texts``,
    ``count_tokens``, ``predict`` and ``latent_shape``.
    """

    component = "transformer"
    codec_pixels: int | None = 1024 * 1024  # that the codec takes at once; None: all of them

    def __init__(self, pipeline: Any, token_budget: int, said: str) -> None:
        """Freeze the network.

        Args:
            pipeline: Of diffusers.
            token_budget: Prompt tokens that the narrowest encoder reads.
            said: Family, scales and lengths that decide latents and embeddings.
        """
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline
        self.network = pipeline.components[self.component]
        self.network.requires_grad_(False)
        self.token_budget = token_budget
        self._said = said

    @cached_property
    def identity(self) -> str:
        """Return a hash of codec, encoders and their weights, which are all read for it."""
        return identity(self._pipeline, self._said)

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return the network's latents of ``z``, the mean of the codec's distribution."""
        pieces = self._pieces(pixels, pixels.shape[-2] * pixels.shape[-1])
        found = torch.cat([self._encoded(piece) for piece in pieces])
        return self._to_latents(found.float())

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return pixels around [-1, 1]."""
        high, wide = self._pixels(*latents.shape[-2:])
        pieces = self._pieces(self._to_codec(latents), high * wide)
        return torch.cat([self._decoded(piece) for piece in pieces])

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
        """Return clean latents from unit noise ``[B, C, H, W]`` by the pipeline's own sampler.

        Guidance above 1 leads away from the empty prompt, with two passes in each step. The
        guidance input of a distilled model is ``distilled_guidance`` in both.
        """
        check_distilled(self.network, distilled_guidance)
        batch, _, height, width = noise.shape
        pixels_high, pixels_wide = self._pixels(height, width)
        dtype = floating(self.network)  # pipelines cast noise or embeddings, never both
        against = {name: one.expand(batch, *one.shape[1:]) for name, one in empty.items()}
        found: Tensor = self._pipeline(
            **self._prompted(condition, dtype),
            latents=self._packed(self._noise(noise, dtype)),
            height=pixels_high,
            width=pixels_wide,
            num_inference_steps=steps,
            output_type="latent",
            return_dict=False,
            **self._guided_by(guidance, distilled_guidance),
            **(negated(self._prompted(against, dtype)) if guidance > 1 else {}),
        )[0]
        return self._unpacked(found, height, width).float()

    def release_encoders(self, *, texts: bool = True) -> None:
        """Drop the codec and, with ``texts``, the text encoders from memory."""
        parts = (name for _, name in _READERS if texts and name in self._pipeline.components)
        self._pipeline.register_modules(**dict.fromkeys(("vae", *parts)))

    def pipeline(self) -> Any:
        """Return the diffusers pipeline around the same weights."""
        return self._pipeline

    def _to_latents(self, encoded: Tensor) -> Tensor:
        """The network's latents of the codec's: ``(z - shift) * scale``."""
        shift, scale = self._scaling()
        return (encoded - shift) * scale

    def _to_codec(self, latents: Tensor) -> Tensor:
        """The inverse of ``_to_latents``."""
        shift, scale = self._scaling()
        return latents / scale + shift

    def _noise(self, noise: Tensor, dtype: torch.dtype) -> Tensor:
        """Noise in the precision in which the pipeline takes it."""
        return noise.to(dtype)

    def _pixels(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the picture of so many latents."""
        scale = self._pipeline.vae_scale_factor
        return height * scale, width * scale

    def _scaling(self) -> tuple[float, float]:
        """Shift and scale between the codec's latents and the network's."""
        codec = self._pipeline.vae.config
        return float(getattr(codec, "shift_factor", None) or 0), float(codec.scaling_factor)

    def _prompted(self, condition: Condition, dtype: torch.dtype) -> dict[str, Any]:
        """The pipeline's arguments that say what to paint, one row or entry a picture."""
        return {
            "prompt_embeds": condition["tokens"].to(dtype),
            "pooled_prompt_embeds": condition["pooled"].to(dtype),
        }

    def _encoded(self, pixels: Tensor) -> Tensor:
        """The codec's own latents of pixels."""
        codec = self._pipeline.vae
        encoded = codec.encode(pixels.to(dtype=codec.dtype, device=codec.device))
        tiny = hasattr(encoded, "latents")  # AutoencoderTiny and PatchPCA have no distribution
        found: Tensor = encoded.latents if tiny else encoded.latent_dist.mode()
        return found

    def _decoded(self, latents: Tensor) -> Tensor:
        """Pixels of the codec's own latents."""
        codec = self._pipeline.vae
        decoded: Tensor = codec.decode(latents.to(codec.dtype)).sample
        return decoded.float()

    def _pieces(self, batch: Tensor, area: int) -> Sequence[Tensor]:
        """A batch of pictures of ``area`` pixels in pieces that the codec takes at once."""
        limit = self.codec_pixels
        count = len(batch) if limit is None else max(limit // area, 1)
        return [batch[start : start + count] for start in range(0, len(batch), count)]

    def _guided_by(self, guidance: float, distilled: float | None) -> dict[str, float]:
        """The pipeline's arguments for this strength of guidance."""
        del distilled  # `check_distilled` saw to it that there is none
        return {"guidance_scale": guidance}

    def _packed(self, latents: Tensor) -> Tensor:
        """Latents as the network reads them."""
        return latents

    def _unpacked(self, latents: Tensor, height: int, width: int) -> Tensor:
        """The inverse of ``_packed``."""
        del height, width
        return latents


def negated(prompted: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by which a pipeline is led away from what these would paint."""
    return {f"negative_{name}": value for name, value in prompted.items()}


def read(
    kind: Any, name: str, params: ModelParams, *, codec_dtype: torch.dtype | None = None
) -> Any:
    """Return a pipeline of class ``kind`` from a folder or from the hub, on its device.

    Args:
        kind: A diffusers pipeline class.
        name: The family in words, for errors.
        params: Where from, which commit, in which precision.
        codec_dtype: Precision of the codec where it is not that of the rest.

    Raises:
        ArtifactError: The folder is absent or is no such pipeline.
        ParamsError: Its tokenizer files are missing; or what quantises it is not here.
    """
    folder = Path(params.source)
    dtype = getattr(torch, params.dtype)
    codec_dtype = codec_dtype or dtype
    parts: dict[str, Any] = {}
    if params.quantise is not None:
        parts["quantization_config"] = quantization.config(kind, params.quantise, dtype)
    if _is_patch_pca(folder):
        from atelier.models.codec import PatchPCA

        # A pipeline folder names classes; diffusers imports only its own from it.
        parts["vae"] = PatchPCA.from_pretrained(folder / "vae", torch_dtype=codec_dtype)
    elif not folder.is_dir() and params.revision is None:
        raise ArtifactError(
            f"model.source {params.source!r} is no folder here, and without model.revision it "
            "is no hub id; `dvc pull` fetches a base that is pinned, `atelier base` trains a "
            "small one, and a hub id needs a commit"
        )
    with quiet():
        try:
            _check_family(kind, params)
            pipeline = kind.from_pretrained(
                params.source,
                revision=params.revision,
                dtype={"default": dtype, "vae": codec_dtype},
                use_safetensors=True,
                **parts,
            )
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"model.source {params.source!r} cannot be loaded as {name} pipeline: {error}"
            ) from None
    _check_tokenizers(pipeline, params.source)
    if params.codec.tile_pixels is not None:
        _tile(pipeline.vae, params.codec.tile_pixels)
    with out_of_memory.explained(
        "The base model",
        [
            "model.dtype: bfloat16 (if it is float32)",
            "model.quantise: int8, then nf4 (CUDA)",
            "end other programs that hold the device's memory",
        ],
        then="Nothing was trained or painted yet",
    ):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        _realign(pipeline, device)
        return pipeline.to(device)


def token_ids(tokenizer: Any, prompts: list[str], length: int) -> Tensor:
    """Return the tokens of each prompt, padded or cut to ``length``, long ``[B, length]``."""
    tokens: Tensor = tokenizer(
        prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return tokens


def chat(tokenizer: Any, prompt: str, *, thinking: bool) -> str:
    """Return what a pipeline that talks to Qwen3 makes of a prompt before it reads it."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    return text


def check_distilled(network: nn.Module, guidance: float | None) -> None:
    """Refuse a guidance input that the network lacks, and a network whose input is not said.

    Raises:
        ParamsError: Network and setting do not fit.
    """
    reads = bool(getattr(network.config, "guidance_embeds", False))
    if reads and guidance is None:
        raise ParamsError(
            "distilled_guidance should be a number: this base has guidance as an input of its "
            "network; 3.5 is usual for FLUX.1-dev"
        )
    if guidance is not None and not reads:
        raise ParamsError(
            f"distilled_guidance should be null, is {guidance:g}: this base has no guidance as "
            "an input of its network, as FLUX.1-dev has"
        )


def floating(network: nn.Module) -> torch.dtype:
    """Return the precision of the network's first weights: the base's, not an adapter's."""
    return next(p.dtype for p in network.parameters() if p.is_floating_point())


def identity(pipeline: Any, said: str) -> str:
    """Hash what decides latents and embeddings.

    Args:
        pipeline: With codec, text encoders and their tokenizers.
        said: The family, and the scales and lengths that it works with.
    """
    digest = hashlib.sha256(said.encode())
    every = readers(pipeline)
    for tokenizer, _ in every:
        digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    if getattr(pipeline.vae, "use_tiling", False):
        digest.update(f"tiles of {_tile_side(pipeline.vae)}".encode())
    for module in (pipeline.vae, *(encoder for _, encoder in every)):
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def readers(pipeline: Any) -> list[tuple[Any, Any]]:
    """Return tokenizers and encoders, in order."""
    parts = pipeline.components
    return [(parts[one], parts[other]) for one, other in _READERS if other in parts]


def _is_patch_pca(folder: Path) -> bool:
    config = folder / "vae" / "config.json"
    return config.is_file() and '"PatchPCA"' in config.read_text(encoding="utf-8")


def _check_family(kind: Any, params: ModelParams) -> None:
    """A pipeline of another family may have parts of the same names, and then load.

    Raises:
        ValueError: It is of another family.
    """
    index = kind.load_config(params.source, revision=params.revision)
    named, own = index["_class_name"], kind.__name__.removesuffix("Pipeline")
    if not named.startswith(own) or named.removeprefix(own)[:1].isdigit():  # FLUX, not FLUX.2
        raise ValueError(f"its model_index.json names a {index['_class_name']}")


def _tile(codec: Any, pixels: int) -> None:
    """Let a codec of diffusers work in overlapping tiles of ``pixels`` a side.

    Raises:
        ParamsError: It cannot.
    """
    if not hasattr(codec, "use_tiling"):
        raise ParamsError(
            f"model.codec.tile_pixels should be null, is {pixels}: a {type(codec).__name__} "
            "works on whole pictures"
        )
    if "tile_sample_min_height" in inspect.signature(codec.enable_tiling).parameters:
        codec.enable_tiling(tile_sample_min_height=pixels, tile_sample_min_width=pixels)
        return
    codec.enable_tiling()
    step = codec.tile_sample_min_size / codec.tile_latent_min_size
    codec.tile_sample_min_size = pixels
    codec.tile_latent_min_size = max(round(pixels / step), 1)


def _tile_side(codec: Any) -> int:
    """Side of a codec's tiles, in pixels."""
    wide = hasattr(codec, "tile_sample_min_height")
    return int(codec.tile_sample_min_height if wide else codec.tile_sample_min_size)


def _check_tokenizers(pipeline: Any, source: str) -> None:
    """Offline and uncached, transformers returns an almost empty tokenizer without a word."""
    if any(part is None for reader in readers(pipeline) for part in reader):
        raise ArtifactError(
            f"model.source {source!r} lacks a text encoder or its tokenizer; some are offered "
            "without T5 to save memory, take a whole one"
        )
    for tokenizer, encoder in readers(pipeline):
        expected = encoder.config.get_text_config().vocab_size
        if len(tokenizer) < 0.9 * expected:
            raise ParamsError(
                f"model.source {source!r}: {type(tokenizer).__name__} has {len(tokenizer)} "
                f"tokens, its encoder expects {expected}; the tokenizer files are missing"
            )


def _realign(pipeline: Any, device: str) -> None:
    """Copy weights out of the file's unaligned views: results else differ by ~1e-6 a load.

    They go to their device one by one, and the file's pages are given back: the host's memory
    holds each weight once, or, of a model for CUDA, hardly any.
    """
    mapped = mapped_files.ranges()
    parts = pipeline.components.values()
    for module in (part for part in parts if isinstance(part, nn.Module)):
        for parameter in module.parameters():
            if type(parameter.data) is Tensor and parameter.is_floating_point():
                view = parameter.data  # quantised ones are made, not read
                parameter.data = view.to(device, copy=True)
                mapped_files.let_go(view, mapped)
        module.eval()
