"""LoRA export for ComfyUI: kohya's layout of SDXL, FLUX and Chroma, ComfyUI's of others.

A layer becomes ``lora_unet_<layer>`` with ``lora_down``, ``lora_up`` and ``alpha``; readers
scale by alpha / rank. Layers have the names of the models' own code, which kohya's tools look
up: SDXL counts its blocks in ``input_blocks``, ``middle_block`` and ``output_blocks``; both
FLUX and Chroma keep what diffusers splits into q, k, v (and a single block's MLP) in one layer.
The header says in kohya's ``ss_…`` and Stability's ``modelspec.…`` what the LoRA is. Of
families whose layers ComfyUI knows by diffusers' names, a layer becomes
``diffusion_model.<layer>`` with ``lora_A``, ``lora_B`` and ``alpha``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from atelier import atomic
from atelier.errors import ArtifactError
from atelier.models import adapters
from atelier.models.files.lora_files import Lora, Target, header_sorted, outputs

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
# FLUX.2 shares one modulation among all blocks, and its single blocks are two layers here, too.
_DOUBLE_2 = {
    **{name: parts for name, parts in _DOUBLE.items() if "_attn_" in name},
    "img_mlp_0": ("ff.linear_in",),
    "img_mlp_2": ("ff.linear_out",),
    "txt_mlp_0": ("ff_context.linear_in",),
    "txt_mlp_2": ("ff_context.linear_out",),
}
_SINGLE_2 = {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)}
_BLOCKS_2 = (
    ("transformer_blocks", "double_blocks", _DOUBLE_2),
    ("single_transformer_blocks", "single_blocks", _SINGLE_2),
)
# Layers of diffusers' UNet in SDXL's own names.
_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_PLACE = re.compile(
    r"(?P<side>down_blocks|up_blocks|mid_block)\.(?:(?P<block>\d+)\.)?"
    r"(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<number>\d+)\.(?P<rest>.+)"
)
_DOTTED = {  # and what the header calls them
    "QwenImageTransformer2DModel": "qwen-image/lora",
    "ZImageTransformer2DModel": "z-image/lora",
}
_CLOSE = 1e-6  # relative error of a scale
_CHROMA = "ChromaTransformer2DModel"
_FLUX = "FluxTransformer2DModel"
_FLUX_2 = "Flux2Transformer2DModel"
_UNET = "UNet2DConditionModel"
_KINDS = {
    _UNET: {
        "ss_network_module": "networks.lora",
        "ss_base_model_version": "sdxl_base_v1-0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
    },
    _FLUX: {
        "ss_network_module": "networks.lora_flux",
        "ss_base_model_version": "flux1",
        "modelspec.architecture": "flux-1-dev/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux",
    },
    _CHROMA: {
        "ss_network_module": "networks.lora_flux",
        "ss_base_model_version": "chroma",
        "modelspec.architecture": "chroma/lora",
        "modelspec.implementation": "https://github.com/lodestone-rock/flow",
    },
    _FLUX_2: {
        "modelspec.architecture": "flux-2-klein/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux2",
    },
}
Layers = Mapping[
    str, tuple[Tensor, Tensor]
]  # ``A`` ``[r, in]`` and ``B`` ``[out, r]`` by layer


@dataclass(frozen=True)
class About:
    """What the header says of a LoRA.

    Attributes:
        title: Its name.
        base: The model that it is for.
        comment: How it came about.
        pixels: Side of the pictures that it was trained on.
        predicts: ``epsilon`` or ``v`` of SDXL; None for others.
    """

    title: str
    base: str
    comment: str
    pixels: int
    predicts: str | None = None


def export(painter: "Denoiser", name: str, file: Path, about: About | None = None) -> None:
    """Write an adapter that is in memory.

    Raises:
        ArtifactError: The layout cannot say what this adapter or its network is.
        DiskError: It cannot be written; an older file is untouched.
    """
    target = Target(painter.component, painter.network, type(painter.pipeline()))
    write(adapters.lora(painter, name), target, file, about or About(file.stem, "", "", 1024))


def write(
    lora: Lora, target: Target, file: Path, about: About, dtype: torch.dtype | None = None
) -> None:
    """Write a LoRA in the layout that ComfyUI reads of its network.

    Args:
        lora: The LoRA.
        target: What it is for; weights need not be there.
        file: What is written.
        about: For the header.
        dtype: Precision of the weights; None leaves them as they are.

    Raises:
        ArtifactError: The layout cannot say what this LoRA or its network is.
        DiskError: It cannot be written; an older file is untouched.
    """
    if any("magnitude" in key for key in lora.tensors):
        raise ArtifactError(
            "a DoRA cannot be written in this layout; use the adapter's own file, which "
            "diffusers reads, or train with lora.dora: false"
        )
    kind = type(target.network).__name__
    if kind not in _KINDS and kind not in _DOTTED:
        raise ArtifactError(
            f"no layout but diffusers' own is known for this network, a {kind}; ComfyUI and "
            "diffusers read the adapter's own file"
        )
    found = lora.layers()
    layers = {name: (a.to(dtype), b.to(dtype)) for name, (a, b, _) in found.items()}
    scales = {name: scale for name, (_, _, scale) in found.items()}
    if kind in _DOTTED:
        tensors = dotted(layers, scales)
    else:
        tensors = (sdxl if kind == _UNET else flux)(target.network, layers, scales)
    content = safetensors.torch.save(tensors, _header(kind, layers, scales, about))
    atomic.write(file, header_sorted(content))


def dotted(layers: Layers, scales: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the tensors of a LoRA whose layers ComfyUI knows by diffusers' names.

    Args:
        layers: By diffusers' names.
        scales: Factor of ``B A`` by layer.
    """
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in layers.items():
        up, alpha = _scaled(down, up, scales[layer])
        tensors |= {
            f"diffusion_model.{layer}.lora_A.weight": down.contiguous(),
            f"diffusion_model.{layer}.lora_B.weight": up.contiguous(),
            f"diffusion_model.{layer}.alpha": alpha,
        }
    return tensors


def flux(network: Any, layers: Layers, scales: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the tensors of a LoRA for FLUX, FLUX.2 or Chroma.

    Where FLUX keeps n layers in one, the ranks of those that are trained stand side by side:
    ``down`` is stacked, and ``up`` has each one's ``B`` in its own rows and columns.

    Args:
        network: The transformer; says how wide layers are.
        layers: By diffusers' names.
        scales: Factor of ``B A`` by layer.

    Raises:
        ArtifactError: A layer has no name in this layout.
    """
    left = set(layers)
    tensors: dict[str, Tensor] = {}
    for blocks, place, names in _BLOCKS_2 if type(network).__name__ == _FLUX_2 else _BLOCKS:
        inside = re.compile(rf"{blocks}\.(\d+)\..+")
        for block in sorted({int(m[1]) for layer in layers if (m := inside.fullmatch(layer))}):
            for flat, parts in names.items():
                members = [f"{blocks}.{block}.{part}" for part in parts]
                left -= set(members)
                if any(member in layers for member in members):
                    whole = _fused(network, members, layers, scales)
                    tensors |= _entry(f"{place}_{block}_{flat}", *whole)
    if left:
        raise ArtifactError(
            f"kohya's layout has no name for the layer {min(left)!r} ({len(left)} such); use "
            "the adapter's own file, or train lora.targets [to_q, to_k, to_v, to_out.0]"
        )
    return tensors


def sdxl(network: Any, layers: Layers, scales: Mapping[str, float]) -> dict[str, Tensor]:
    """Return the tensors of an SDXL LoRA.

    Args:
        network: The UNet; says how many layers a block has.
        layers: By diffusers' names.
        scales: Factor of ``B A`` by layer.

    Raises:
        ArtifactError: A layer has no name in this layout.
    """
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in layers.items():
        name = sdxl_name(layer, network.config.layers_per_block)
        if name is None:
            raise ArtifactError(
                f"kohya's layout has no name for the layer {layer!r}; use the adapter's own "
                "file, or train lora.targets [to_q, to_k, to_v, to_out.0]"
            )
        tensors |= _entry(name.replace(".", "_"), down, up, scales[layer])
    return tensors


def sdxl_name(layer: str, layers_per_block: int) -> str | None:
    """Return SDXL's own name of a layer of diffusers' UNet; None if it has none.

    Its blocks are counted on, resamplers included: with n layers a block, layer l of block b
    is ``input_blocks.{1 + b (n + 1) + l}`` on the way down and
    ``output_blocks.{b (n + 1) + l}`` on the way up.
    """
    if layer in _OUTSIDE:
        return _OUTSIDE[layer]
    place = _PLACE.fullmatch(layer)
    if place is None:
        return None
    block, number = int(place["block"] or 0), int(place["number"])
    head, _, tail = place["rest"].partition(".")
    inner = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 2}[place["kind"]]
    rest = place["rest"]
    if place["kind"] == "resnets":
        rest = ".".join([_RESNET.get(head, head), *filter(None, [tail])])
    if place["kind"] == "downsamplers":
        rest = rest.replace("conv", "op", 1)
    if place["side"] == "mid_block":
        return f"middle_block.{2 * number if inner == 0 else 1}.{rest}"
    within = layers_per_block if inner == 2 or "samplers" in place["kind"] else number
    at = block * (layers_per_block + 1) + within
    side = "output_blocks" if place["side"] == "up_blocks" else "input_blocks"
    return f"{side}.{at + (side == 'input_blocks')}.{inner}.{rest}"


def _fused(
    network: Any, members: Sequence[str], layers: Layers, scales: Mapping[str, float]
) -> tuple[Tensor, Tensor, float]:
    """One layer of several: down ``[sum r, in]``, up ``[sum out, sum r]``, and its scale."""
    trained = [member for member in members if member in layers]
    if len({scales[member] for member in trained}) > 1:  # one alpha must do for all
        layers = {name: (layers[name][0], layers[name][1] * scales[name]) for name in trained}
        scales = dict.fromkeys(trained, 1.0)
    down = torch.cat([layers[member][0] for member in trained])
    widths = [outputs(network.get_submodule(member)) for member in members]
    up = down.new_zeros(sum(widths), len(down))
    row = column = 0
    for member, width in zip(members, widths, strict=True):
        if member in layers:
            b = layers[member][1]
            up[row : row + width, column : column + b.shape[1]] = b
            column += b.shape[1]
        row += width
    return down, up, scales[trained[0]]


def _entry(name: str, down: Tensor, up: Tensor, scale: float) -> dict[str, Tensor]:
    up, alpha = _scaled(down, up, scale)
    return {
        f"lora_unet_{name}.lora_down.weight": down.contiguous(),
        f"lora_unet_{name}.lora_up.weight": up.contiguous(),
        f"lora_unet_{name}.alpha": alpha,
    }


def _scaled(down: Tensor, up: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """``B`` and alpha, whose share of the rank is the scale, in the precision of ``A``."""
    alpha = torch.tensor(scale * len(down), dtype=down.dtype)
    if abs(alpha.item() / len(down) - scale) > _CLOSE * scale:  # too long for half precision
        alpha, up = torch.tensor(len(down), dtype=down.dtype), up.float() * scale
    return up.to(down.dtype), alpha


def _header(
    kind: str, layers: Layers, scales: Mapping[str, float], about: About
) -> dict[str, str]:
    """What kohya's tools and model managers read of a LoRA without its weights."""
    ranks = {len(a) for a, _ in layers.values()}
    alphas = {scales[name] * len(a) for name, (a, _) in layers.items()}
    said = {
        **(_KINDS[kind] if kind in _KINDS else {"modelspec.architecture": _DOTTED[kind]}),
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": f"{alphas.pop():g}" if len(alphas) == 1 else "Dynamic",
        "ss_sd_model_name": about.base,
        "ss_output_name": about.title,
        "ss_training_comment": about.comment,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": about.title,
        "modelspec.description": about.comment,
        "modelspec.resolution": f"{about.pixels}x{about.pixels}",
        "modelspec.prediction_type": about.predicts or "",
        "format": "pt",
    }
    return {key: value for key, value in said.items() if value}
