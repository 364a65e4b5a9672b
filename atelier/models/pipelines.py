"""Diffusers pipelines: loading, and what all families' denoisers share."""

import contextlib
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import safetensors
import torch
from torch import Tensor, nn

from atelier import out_of_memory
from atelier.config.model import ModelParams
from atelier.errors import ArtifactError, ParamsError
from atelier.models import attention, quantization
from atelier.models.denoiser import Condition, quiet
from atelier.models.files import mapped_files

_VARIANT = re.compile(
    r"\.[^.]+\.safetensors$"
)  # such as diffusion_pytorch_model.fp16.safetensors
_FLOATING = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_READERS = [
    ("tokenizer", "text_encoder"),
    ("tokenizer_2", "text_encoder_2"),
    ("tokenizer_3", "text_encoder_3"),
]


@dataclass(frozen=True)
class Unloaded:
    """A network that stays on the disk until it is needed.

    Attributes:
        config: What its ``config`` will be.
        load: Loads it onto its device.
    """

    config: Any
    load: Callable[[], Any]


class PipelineDenoiser:
    """A diffusers pipeline behind the ``Denoiser`` protocol, except texts and prediction.

    A family names its ``component`` and ``process``, and implements ``encode_texts``,
    ``count_tokens``, ``predict`` and ``latent_shape``.

    Attributes:
        unloaded: The network, where the pipeline was loaded without it.
    """

    component = "transformer"
    codec_pixels: int | None = 1024 * 1024  # that the codec takes at once; None: all of them
    unloaded: Unloaded | None = None

    def __init__(self, pipeline: Any, token_budget: int, said: str) -> None:
        """Take a pipeline, with or without its network.

        Args:
            pipeline: Of diffusers.
            token_budget: Prompt tokens that the narrowest encoder reads.
            said: Family, scales and lengths that decide latents and embeddings.
        """
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline
        self._network: Any = None
        if pipeline.components[self.component] is not None:
            self._take(pipeline.components[self.component])
        self.token_budget = token_budget
        self._said = said

    @property
    def network(self) -> Any:
        """Return the network, which is loaded when it is first asked for, and frozen."""
        if self._network is None:
            assert self.unloaded is not None
            network = self.unloaded.load()
            self._pipeline.register_modules(**{self.component: network})
            self._take(network)
        return self._network

    @network.setter
    def network(self, network: Any) -> None:
        self._network = network

    @property
    def network_config(self) -> Any:
        """Return the network's configuration, without loading it."""
        if self._network is None and self.unloaded is not None:
            return self.unloaded.config
        return self.network.config

    def _take(self, network: Any) -> None:
        """Take the network, which the pipeline has now, and freeze it."""
        self._network = network
        network.requires_grad_(False)

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
        check_distilled(self.network_config, distilled_guidance)
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
        """Return the diffusers pipeline around the same weights, its network loaded."""
        assert self.network is not None
        return self._pipeline

    def parts(self) -> Any:
        """Return the diffusers pipeline as it is; its network may not be loaded yet."""
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


_Painter = TypeVar("_Painter", bound=PipelineDenoiser)


def load(
    kind: Any,
    name: str,
    params: ModelParams,
    around: Callable[[Any, ModelParams], _Painter],
    *,
    codec_dtype: torch.dtype | None = None,
) -> _Painter:
    """Return a painter from a folder or from the hub, its network not loaded yet.

    Who encodes everything first, releases the encoders and asks for the network then, never
    holds both in memory.

    Args:
        kind: A diffusers pipeline class.
        name: The family in words, for errors.
        params: Where from, which commit, in which precision.
        around: Makes the painter of a pipeline.
        codec_dtype: Precision of the codec where it is not that of the rest.

    Raises:
        ArtifactError: The folder is absent or is no such pipeline.
        ParamsError: Its tokenizer files are missing; or what quantises it, or computes its
            attention, is not here.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, params.dtype)
    codec_dtype = codec_dtype or dtype
    with _readable(name, params):
        folder = _fetched(kind, params)
        index = _checked_index(kind, folder)
        component = "unet" if "unet" in index else "transformer"
        parts: dict[str, Any] = {component: None}
        if _is_patch_pca(folder):
            from atelier.models.codec import PatchPCA

            # A pipeline folder names classes; diffusers imports only its own from it.
            parts["vae"] = PatchPCA.from_pretrained(folder / "vae", torch_dtype=codec_dtype)
        unloaded = _unloaded(folder / component, index[component][1], name, params, device)
        pipeline = kind.from_pretrained(
            folder,
            dtype={"default": dtype, "vae": codec_dtype},
            use_safetensors=True,
            **parts,
        )
    _check_tokenizers(pipeline, params.source)
    if params.codec.tile_pixels is not None:
        _tile(pipeline.vae, params.codec.tile_pixels)
    with _fitting():
        _realign(pipeline.components.values(), device)
        pipeline.to(device)
    painter = around(pipeline, params)
    painter.unloaded = unloaded
    return painter


def _unloaded(
    folder: Path, named: str, name: str, params: ModelParams, device: str
) -> Unloaded:
    """What loads the network from its folder, of the class that is ``named``.

    Raises:
        OSError: Its configuration or its weights are not there.
        ParamsError: What quantises it, or computes its attention, is not here.
    """
    import diffusers

    kind = getattr(diffusers, named)
    config = kind.load_config(folder)
    if not any(folder.glob("*.safetensors")):
        raise OSError(f"{folder} holds no weights (*.safetensors)")
    dtype = getattr(torch, params.dtype)
    how, converted = {"dtype": dtype}, None
    if params.quantise is not None:
        how["quantization_config"] = quantization.config(params.quantise, dtype)
    elif kind._keep_in_fp32_modules is None and (stored := _stored_dtype(folder)) is not None:
        # Converted one by one below; diffusers would hold a whole file in both precisions.
        how["dtype"], converted = stored, dtype
    if params.attention is not None:
        with torch.device("meta"):
            attention.attend_by(kind.from_config(config), params.attention)

    def load() -> Any:
        with _readable(name, params):
            network = kind.from_pretrained(folder, use_safetensors=True, **how)
        with _fitting():
            _realign([network], device, converted)
            network.to(device)
        if params.attention is not None:
            attention.attend_by(network, params.attention)
        return network

    return Unloaded(_with_defaults(kind, config), load)


def _stored_dtype(folder: Path) -> torch.dtype | None:
    """The precision of a network's files; None where it is not one."""
    found = set()
    for file in folder.glob("diffusion_pytorch_model*.safetensors"):
        if _VARIANT.search(file.name) is None:
            with safetensors.safe_open(file, framework="pt") as opened:
                names = opened.keys()
                found |= {opened.get_slice(name).get_dtype() for name in names}
    return _FLOATING.get(found.pop()) if len(found) == 1 else None


def _with_defaults(kind: Any, config: dict[str, Any]) -> SimpleNamespace:
    """A model's configuration as the model has it: what its file leaves out has defaults."""
    known = inspect.signature(kind.__init__).parameters.values()
    defaults = {one.name: one.default for one in known if one.default is not one.empty}
    return SimpleNamespace(**defaults | config)


def _fetched(kind: Any, params: ModelParams) -> Path:
    """The base's folder; one of the hub is fetched whole, before anything is loaded.

    Raises:
        ArtifactError: The source is no folder, and no commit of the hub is named.
    """
    folder = Path(params.source)
    if folder.is_dir():
        return folder
    if params.revision is None:
        raise ArtifactError(
            f"model.source {params.source!r} is no folder here, and without model.revision it "
            "is no hub id; `dvc pull` fetches a base that is pinned, `atelier base` trains a "
            "small one, and a hub id needs a commit"
        )
    return Path(kind.download(params.source, revision=params.revision, use_safetensors=True))


@contextlib.contextmanager
def _readable(name: str, params: ModelParams) -> Iterator[None]:
    """Inside, what cannot be loaded is said in one sentence, and nothing else is.

    Raises:
        ArtifactError: It cannot be loaded.
    """
    with quiet():
        try:
            yield
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"model.source {params.source!r} cannot be loaded as {name} pipeline: {error}"
            ) from None


def _fitting() -> contextlib.AbstractContextManager[None]:
    """What to change when the device has too little memory for the base."""
    return out_of_memory.explained(
        "The base model",
        [
            "model.dtype: bfloat16 (if it is float32)",
            "model.quantise: int8, then nf4 (CUDA)",
            "end other programs that hold the device's memory",
        ],
        then="Nothing was trained or painted yet",
    )


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


def check_distilled(config: Any, guidance: float | None) -> None:
    """Refuse a guidance input that the network lacks, and a network whose input is not said.

    Args:
        config: The network's.
        guidance: What is to be its input; None: it has no such input.

    Raises:
        ParamsError: Network and setting do not fit.
    """
    reads = bool(getattr(config, "guidance_embeds", False))
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


def _checked_index(kind: Any, folder: Path) -> dict[str, Any]:
    """What a pipeline's folder says of its parts.

    Raises:
        ValueError: It is of another family, which may have parts of the same names, and load.
    """
    index: dict[str, Any] = kind.load_config(folder)
    named, own = index["_class_name"], kind.__name__.removesuffix("Pipeline")
    if not named.startswith(own) or named.removeprefix(own)[:1].isdigit():  # FLUX, not FLUX.2
        raise ValueError(f"its model_index.json names a {index['_class_name']}")
    return index


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


def _realign(parts: Iterable[Any], device: str, dtype: torch.dtype | None = None) -> None:
    """Copy weights out of the file's unaligned views: results else differ by ~1e-6 a load.

    They go to their device one by one, and the file's pages are given back: the host's memory
    holds each weight once, or, of a model for CUDA, hardly any.

    Args:
        parts: Of a pipeline; what has no weights is left alone.
        device: Where they go.
        dtype: Their precision; None: as they are.
    """
    mapped = mapped_files.ranges()
    for module in (part for part in parts if isinstance(part, nn.Module)):
        for parameter in module.parameters():
            if type(parameter.data) is Tensor and parameter.is_floating_point():
                view = parameter.data  # quantised ones are made, not read
                parameter.data = view.to(device, dtype, copy=True)
                mapped_files.let_go(view, mapped)
        if dtype is not None:
            _convert_buffers(module, dtype)
        module.eval()


def _convert_buffers(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert those of floats that a model's files hold; others are made as they should be."""
    for owner in module.modules():
        for name, buffer in owner._buffers.items():
            held = name not in owner._non_persistent_buffers_set
            if buffer is not None and held and buffer.is_floating_point():
                owner._buffers[name] = buffer.to(dtype)
