"""LoRA start: lets a fresh LoRA predict what a LoRA of any trainer does, before it is trained.

A fresh LoRA of rank ``R`` and factor ``s`` becomes ``f B A`` of rank ``r <= R`` exactly: the
first ``r`` rows of its A are ``A``, the first ``r`` columns of its B are ``f / s B``. The rest
of its B stays zero and the rest of its A as drawn, so that they learn as a fresh LoRA does.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from atelier.errors import ArtifactError
from atelier.models import adapters
from atelier.models.files import lora_files, weight_files

if TYPE_CHECKING:
    from atelier.models.denoiser import Denoiser

_SHOWN = 3  # layers that a message names
_Layers = dict[str, dict[str, Tensor]]


def begin(painter: "Denoiser", name: str, place: Path, section: str) -> str:
    """Let the LoRA ``name``, just added, begin as the one in a file or folder.

    Args:
        painter: Whose network has the LoRA ``name``.
        name: Of the LoRA that is about to be trained.
        place: What a person brought.
        section: Of the profile, ``sft`` or ``cpo``, whose ``lora:`` gave ``name`` its shape.

    Returns:
        A sentence about what was taken.

    Raises:
        ArtifactError: It is absent, damaged, made for another base, or of a shape that
            ``name`` cannot express.
    """
    path = weight_files.brought(place)
    if path is None:
        raise ArtifactError(
            f"{place}, as which {name} should begin, holds no LoRA (*.safetensors); put it "
            f"there, or run `dvc pull` if {place}.dvc pins it"
        )
    if path.name == weight_files.FULL:
        raise ArtifactError(f"{path} holds full weights; {section}'s init takes a LoRA")
    network = painter.network
    target = lora_files.Target(painter.component, network, type(painter.pipeline()))
    lora = lora_files.read(path, target)
    own = _own(network, name)
    _refuse_unlike(path, lora, own, network.peft_config[name], section)
    for layer, (a, b, factor) in lora.layers().items():
        parts, rank = own[layer], len(a)
        scale = network.get_submodule(layer).scaling[name]
        parts["lora_A"].data[:rank] = a.to(parts["lora_A"])
        parts["lora_B"].data[:, :rank] = b.to(parts["lora_B"]) * (factor / scale)
        if "lora_magnitude_vector" in parts:
            length = parts["lora_magnitude_vector"]
            length.data.copy_(lora.tensors[f"{layer}.lora_magnitude_vector"])
    taken = len(lora.layers())
    fresh = len(own) - taken
    return f"{name} begins as {path}: {taken} layers of it" + (
        f", {fresh} more layers begin as the base" if fresh else ""
    )


def _own(network: Any, name: str) -> _Layers:
    """The weights of a LoRA in memory by layer and part."""
    found: _Layers = {}
    for key, parameter in adapters.weights(network, name).items():
        before, _, _ = key.rpartition(f".{name}.")
        layer, _, part = before.rpartition(".")
        found.setdefault(layer, {})[part] = parameter
    return found


def _refuse_unlike(
    path: Path, lora: lora_files.Lora, own: _Layers, config: Any, section: str
) -> None:
    """Refuse a LoRA that the shape of the new one cannot express."""
    layers = lora.layers()
    absent = sorted(layers.keys() - own.keys())
    if absent:
        raise ArtifactError(
            f"{path} adapts {len(absent)} layers that {section}.lora.targets leaves out, such "
            f"as {', '.join(absent[:_SHOWN])}; widen targets ('all-linear' has every linear "
            "layer), or begin as another LoRA"
        )
    rank = max(len(a) for a, _, _ in layers.values())
    if rank > config.r:
        raise ArtifactError(
            f"{path} has rank {rank}, and {section}.lora.rank {config.r} cannot express it; "
            f"set {section}.lora.rank to {rank} or more (alpha may be any)"
        )
    if any(".lora_B.bias" in key for key in lora.tensors):
        raise ArtifactError(f"{path} has biases, which a LoRA trained here does not have")
    lengths = {key.rpartition(".")[0] for key in lora.tensors if "lora_magnitude" in key}
    if lengths != (layers.keys() if config.use_dora else set()):
        raise ArtifactError(
            f"{path} is {'a DoRA' if lengths else 'a LoRA without DoRA'} in {len(layers)} "
            f"layers, and {section}.lora.dora is {str(config.use_dora).lower()}; set it to "
            f"{str(bool(lengths)).lower()}"
        )
