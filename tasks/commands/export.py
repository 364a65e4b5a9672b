"""``atelier export``: a LoRA in the layout that other programs read."""

from pathlib import Path

from atelier.config.profile import Profile
from atelier.errors import ParamsError
from atelier.models import adapters, export, loading
from tasks.commands.paint import named

_NAME = "exported"


def run(profile: Profile, model: str, file: Path) -> None:
    """Write a model's LoRA in kohya's layout, as ComfyUI and AUTOMATIC1111 read it.

    Args:
        profile: Says which base and which objectives there are.
        model: As ``atelier generate --model`` takes it.
        file: What is written.

    Raises:
        ParamsError: The model is unknown, is the bare base, or full weights.
        ArtifactError: Its LoRA is absent, or the layout cannot hold it.
        DiskError: The file cannot be written.
    """
    chosen = named(model, profile)
    if chosen.lora is None:
        raise ParamsError(f"{model!r} has no LoRA to export; name theta1 or an objective")
    if adapters.file(chosen.lora).name == adapters.FULL:
        raise ParamsError(
            f"{model!r} is full weights, no LoRA; {chosen.lora} is a model in diffusers' "
            "layout, which is loaded in place of the base's"
        )
    if file.suffix != ".safetensors":
        raise ParamsError(f"{file} should end in .safetensors, by which readers know it")
    painter = loading.load(chosen.base)
    adapters.attach(painter, _NAME, chosen.lora)
    export.export(painter, _NAME, file)
