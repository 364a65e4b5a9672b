"""``atelier export``: a LoRA in the layout of other programs."""

from pathlib import Path

import torch

from atelier.config.model import public_name
from atelier.config.profile import Profile
from atelier.errors import ParamsError
from atelier.models import adapters, export, loading
from atelier.models.export import About
from atelier.models.files import lora_files, weight_files
from tasks.commands.paint import named


def run(profile: Profile, model: str, file: Path, dtype: str | None = None) -> None:
    """Write a model's LoRA in kohya's layout, as ComfyUI and AUTOMATIC1111 read it.

    Of the base only configurations are read.

    Args:
        profile: Says which base and which objectives there are.
        model: As ``atelier generate --model`` takes it.
        file: What is written.
        dtype: Precision of the weights, as torch calls it; None leaves them as they are.

    Raises:
        ParamsError: The model is unknown, is the bare base, or full weights.
        ArtifactError: Its LoRA is absent, or the layout cannot hold it.
        DiskError: The file cannot be written.
    """
    chosen = named(model, profile)
    if chosen.lora is None:
        raise ParamsError(f"{model!r} has no LoRA to export; name theta1 or an objective")
    path = weight_files.brought(chosen.lora)
    if path is None:
        raise adapters.absent(chosen.lora)
    if path.name == adapters.FULL:
        raise ParamsError(
            f"{model!r} is full weights, no LoRA; {chosen.lora} is a model in diffusers' "
            "layout, which is loaded in place of the base's"
        )
    if file.suffix != ".safetensors":
        raise ParamsError(f"{file} should end in .safetensors, by which readers know it")
    target = loading.skeleton(chosen.base)
    lora = lora_files.read(path, target)
    revision = chosen.base.revision
    about = About(
        title=file.stem,
        base=public_name(chosen.base) + (f" at {revision}" if revision else ""),
        comment=lora.header.get("ss_training_comment") or f"{chosen.name}, made by atelier",
        pixels=chosen.base.pixels,
        predicts=loading.predicts(chosen.base) if target.component == "unet" else None,
    )
    export.write(lora, target, file, about, None if dtype is None else getattr(torch, dtype))
