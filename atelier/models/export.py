"""LoRA export to kohya's layout, for ComfyUI and AUTOMATIC1111 (SDXL and FLUX).

A layer becomes ``lora_unet_<layer>`` with ``lora_down``, ``lora_up`` and ``alpha``; readers
scale by alpha / rank. For FLUX the layout follows the names of the model's own code, which
keeps what diffusers splits into q, k, v (and a single block's MLP) in one layer.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from atelier import atomic
from atelier.errors import ArtifactError

if TYPE_CHECKING:
    from atelier.models.denoiser import Denoiser

# Layers of diffusers' transformer in FLUX's own names; several that are one there stand in the
# order in which it keeps them.
_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn_proj": ("attn.to_out.0",),
    "txt_attn_proj": ("attn.to_add_out",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
_BLOCKS = (
    ("transformer_blocks", "double_blocks", _DOUBLE),
    ("single_transformer_blocks", "single_blocks", _SINGLE),
)
_FLUX = "FluxTransformer2DModel"
_UNET = "UNet2DConditionModel"


def export(painter: "Denoiser", name: str, file: Path) -> None:
    """Write an adapter in kohya's layout.

    Raises:
        ArtifactError: The layout cannot say what this adapter or its network is.
        DiskError: It cannot be written; an older file is untouched.
    """
    network = painter.network
    config = network.peft_config[name]
    if config.use_dora:
        raise ArtifactError(
            "a DoRA cannot be written in kohya's layout; use the adapter's own file, which "
            "diffusers reads, or train with lora.dora: false"
        )
    layers = _layers(get_peft_model_state_dict(network, adapter_name=name))
    scales = {layer: _scale(network, layer, name) for layer in layers}
    kind = type(network).__name__
    if kind == _UNET:
        tensors = _flat(layers, scales)
    elif kind == _FLUX:
        tensors = flux(network, layers, scales)
    else:
        raise ArtifactError(
            f"kohya's layout is known for the networks of sdxl and flux, this is a {kind}; "
            "ComfyUI and diffusers read the adapter's own file"
        )
    atomic.write(file, safetensors.torch.save(tensors))


def flux(
    network: Any, layers: Mapping[str, tuple[Tensor, Tensor]], scales: Mapping[str, float]
) -> dict[str, Tensor]:
    """Return the tensors of a FLUX LoRA.

    Where FLUX keeps n layers in one, their ranks stand side by side: ``down`` is stacked and
    ``up`` block-diagonal, of rank n r; a layer that is not trained is zero.

    Args:
        network: The transformer; says how wide layers are.
        layers: ``A`` ``[r, in]`` and ``B`` ``[out, r]`` by layer.
        scales: Factor of ``B A`` by layer.

    Raises:
        ArtifactError: A layer has no name in this layout.
    """
    left = set(layers)
    tensors: dict[str, Tensor] = {}
    for blocks, place, names in _BLOCKS:
        inside = re.compile(rf"{blocks}\.(\d+)\..+")
        for block in sorted({int(m[1]) for layer in layers if (m := inside.fullmatch(layer))}):
            for flat, parts in names.items():
                members = [f"{blocks}.{block}.{part}" for part in parts]
                left -= set(members)
                if any(member in layers for member in members):
                    whole = _fused(network, members, layers, scales)
                    tensors |= _entry(f"lora_unet_{place}_{block}_{flat}", *whole)
    if left:
        raise ArtifactError(
            f"kohya's layout has no name for the layer {min(left)!r} ({len(left)} such); use "
            "the adapter's own file, or train lora.targets [to_q, to_k, to_v, to_out.0]"
        )
    return tensors


def _fused(
    network: Any,
    members: Sequence[str],
    layers: Mapping[str, tuple[Tensor, Tensor]],
    scales: Mapping[str, float],
) -> tuple[Tensor, Tensor, float]:
    """One layer of several: down ``[n r, in]``, up ``[sum out, n r]``, and its scale."""
    down, _ = next(layers[member] for member in members if member in layers)
    scale = next(scales[member] for member in members if member in layers)
    downs, ups = [], []
    for member in members:
        out = network.get_submodule(member).out_features
        a, b = layers.get(member, (torch.zeros_like(down), torch.zeros(out, len(down))))
        downs.append(a)
        ups.append(b)
    up: Tensor = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
    return torch.cat(downs), up, scale


def _flat(
    layers: Mapping[str, tuple[Tensor, Tensor]], scales: Mapping[str, float]
) -> dict[str, Tensor]:
    """A UNet's tensors: a layer ``a.b`` is ``lora_unet_a_b``."""
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in layers.items():
        tensors |= _entry(f"lora_unet_{layer.replace('.', '_')}", down, up, scales[layer])
    return tensors


def _entry(name: str, down: Tensor, up: Tensor, scale: float) -> dict[str, Tensor]:
    return {
        f"{name}.lora_down.weight": down.contiguous(),
        f"{name}.lora_up.weight": up.contiguous(),
        f"{name}.alpha": torch.tensor(scale * len(down)),
    }


def _layers(state: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """``A`` and ``B`` of each layer."""
    names = [key.removesuffix(".lora_A.weight") for key in state if ".lora_A." in key]
    return {
        name: (
            state[f"{name}.lora_A.weight"].detach().cpu(),
            state[f"{name}.lora_B.weight"].detach().cpu(),
        )
        for name in names
    }


def _scale(network: Any, layer: str, name: str) -> float:
    """What peft multiplies ``B A`` with: alpha / rank, or alpha / sqrt(rank) of rsLoRA."""
    module = network.get_submodule(layer)
    assert isinstance(module, BaseTunerLayer)
    return float(module.scaling[name])
