"""Names of the files that hold trained weights, for readers that must not import torch."""

from pathlib import Path

from atelier.errors import ArtifactError

FILE = "pytorch_lora_weights.safetensors"
FULL = "diffusion_pytorch_model.safetensors"  # beside a config.json: a model of diffusers
ADAPTER_CONFIG = "adapter_config.json"  # of peft, beside adapter_model.safetensors
_PEFT = "adapter_model.safetensors"
_SAFE = ".safetensors"
_PICKLED = {".bin", ".ckpt", ".pt", ".pth"}


def file(folder: Path) -> Path:
    """Return the file with a state's weights: full ones if such lie there, else a LoRA's."""
    return folder / FULL if (folder / FULL).is_file() else folder / FILE


def brought(place: Path) -> Path | None:
    """Return the weights that a person's file or folder holds; None if there are none.

    Raises:
        ArtifactError: The folder holds several, or what is there runs code when it is read.
    """
    if place.is_file() and place.suffix.lower() == _SAFE:
        return place
    if place.suffix.lower() in _PICKLED and place.is_file():
        raise ArtifactError(
            f"{place} is a pickle, which can run code when it is read; convert it to "
            "safetensors where you trust it, and name that file"
        )
    known = [place / name for name in (FULL, FILE, _PEFT) if (place / name).is_file()]
    others = sorted(place.glob(f"*{_SAFE}")) if place.is_dir() else []
    if known or len(others) == 1:
        return (known or others)[0]
    if others:
        raise ArtifactError(
            f"{place} holds {len(others)} files of weights ({others[0].name}, "
            f"{others[1].name}, …); name one of them"
        )
    return None


def parts(place: Path) -> list[Path]:
    """Return the files that decide what a brought LoRA is: its weights, and peft's config."""
    weights = brought(place)
    beside = [] if weights is None else [weights, weights.with_name(ADAPTER_CONFIG)]
    return [file for file in beside if file.is_file()]
