"""What families ask of their diffusers pipeline in the same way: loading, latents, identity."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atelier.config.model import ModelParams
from atelier.errors import ArtifactError, ParamsError
from atelier.models import quantization
from atelier.models.denoiser import Condition, quiet

_READERS = [
    ("tokenizer", "text_encoder"),
    ("tokenizer_2", "text_encoder_2"),
    ("tokenizer_3", "text_encoder_3"),
]


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
        from atelier.models.pca_codec import PatchPCA

        # A pipeline folder names classes; diffusers imports only its own from it.
        parts["vae"] = PatchPCA.from_pretrained(folder / "vae", torch_dtype=codec_dtype)
    elif not folder.is_dir() and params.revision is None:
        raise ArtifactError(
            f"model.source {params.source!r} is no folder here, and without model.revision it "
            "is no hub id; train a small base with `atelier base`, or name a commit"
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
    _realign(pipeline)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def latents(codec: Any, pixels: Tensor, *, shift: float, scale: float) -> Tensor:
    """Return ``(z - shift) * scale``, ``z`` the mean of the codec's distribution."""
    encoded = codec.encode(pixels.to(dtype=codec.dtype, device=codec.device))
    tiny = hasattr(encoded, "latents")  # AutoencoderTiny and PatchPCA have no distribution
    found: Tensor = encoded.latents if tiny else encoded.latent_dist.mode()
    return (found.float() - shift) * float(scale)


def pixels(codec: Any, latents: Tensor, *, shift: float, scale: float) -> Tensor:
    """Return pixels around [-1, 1] of latents that ``latents`` gave."""
    unscaled = latents / scale + shift
    decoded: Tensor = codec.decode(unscaled.to(codec.dtype)).sample
    return decoded.float()


def token_ids(tokenizer: Any, prompts: list[str], length: int) -> Tensor:
    """Return the tokens of each prompt, padded or cut to ``length``, long ``[B, length]``."""
    tokens: Tensor = tokenizer(
        prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return tokens


def guided_against(empty: Condition, images: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the arguments by which a pipeline guides ``images`` away from the empty prompt."""
    return {
        "negative_prompt_embeds": empty["tokens"].expand(images, -1, -1).to(dtype),
        "negative_pooled_prompt_embeds": empty["pooled"].expand(images, -1).to(dtype),
    }


def release_encoders(pipeline: Any) -> None:
    """Drop codec and text encoders from memory."""
    parts = ("vae", *(name for _, name in _READERS if name in pipeline.components))
    pipeline.register_modules(**dict.fromkeys(parts))


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
    readers = _readers(pipeline)
    for tokenizer, _ in readers:
        digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    for module in (pipeline.vae, *(encoder for _, encoder in readers)):
        for name, tensor in module.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _readers(pipeline: Any) -> list[tuple[Any, Any]]:
    """Tokenizers and encoders, in order."""
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
    if not index["_class_name"].startswith(kind.__name__.removesuffix("Pipeline")):
        raise ValueError(f"its model_index.json names a {index['_class_name']}")


def _check_tokenizers(pipeline: Any, source: str) -> None:
    """Offline and uncached, transformers returns an almost empty tokenizer without a word."""
    if any(part is None for reader in _readers(pipeline) for part in reader):
        raise ArtifactError(
            f"model.source {source!r} lacks a text encoder or its tokenizer; some are offered "
            "without T5 to save memory, take a whole one"
        )
    for tokenizer, encoder in _readers(pipeline):
        expected = encoder.config.vocab_size
        if len(tokenizer) < 0.9 * expected:
            raise ParamsError(
                f"model.source {source!r}: {type(tokenizer).__name__} has {len(tokenizer)} "
                f"tokens, its encoder expects {expected}; the tokenizer files are missing"
            )


def _realign(pipeline: Any) -> None:
    """Copy weights out of the file's unaligned views: results else differ by ~1e-6 a load."""
    parts = pipeline.components.values()
    for module in (part for part in parts if isinstance(part, nn.Module)):
        for parameter in module.parameters():
            if type(parameter.data) is Tensor and parameter.is_floating_point():
                parameter.data = parameter.data.clone()  # quantised ones are made, not read
        module.eval()
