"""Names of the files that hold trained weights, for readers that must not import torch."""

from pathlib import Path

FILE = "pytorch_lora_weights.safetensors"
FULL = "diffusion_pytorch_model.safetensors"  # beside a config.json: a model of diffusers


def file(folder: Path) -> Path:
    """Return the file with a state's weights: full ones if such lie there, else a LoRA's."""
    return folder / FULL if (folder / FULL).is_file() else folder / FILE
