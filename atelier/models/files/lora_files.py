"""LoRA files of any trainer, read whole into the names of a network, or refused in words.

Read are the layouts of diffusers and peft (``unet.…``, ``transformer.…``, bare names,
``base_model.model.…``), of ComfyUI and ai-toolkit (``diffusion_model.…``), and the flat ones of
kohya, OneTrainer and LyCORIS (``lora_unet_…``, ``lora_transformer_…``, ``lycoris_…``). Names
that are not the network's own go through diffusers' converters, one layer at a time, so that
nothing is dropped on the way. A key that cannot be used refuses the file.

``delta W = alpha / rank * B A``; without an alpha the factor is 1, as in diffusers.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from atelier.errors import ArtifactError
from atelier.models.denoiser import quiet
from atelier.models.files.weight_files import ADAPTER_CONFIG
from atelier.reading import UnreadableError, json_values, short

_METADATA = "lora_adapter_metadata"  # diffusers' name for peft's config in the file's header
_PARTS = {
    "A": (".lora_A.weight", ".lora_A.default.weight", ".lora_down.weight", ".lora.down.weight",
          "_lora.down.weight"),
    "B": (".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight", ".lora.up.weight",
          "_lora.up.weight"),
    "alpha": (".alpha",),
    "magnitude": (".lora_magnitude_vector", ".lora_magnitude_vector.weight"),
    "bias": (".lora_B.bias",),
}  # fmt: skip
_KEYS = {"A": "lora_A.weight", "B": "lora_B.weight", "magnitude": "lora_magnitude_vector",
         "bias": "lora_B.bias"}  # fmt: skip
_FLAT = ("lora_unet_", "lora_transformer_", "lycoris_")
_DOTTED = ("base_model.model.", "model.diffusion_model.", "diffusion_model.")
_TEXT = re.compile(r"(base_model\.model\.)?(text_encoder|lora_te\d?_|te\d?[._]|clip_[lg]\.)")
_TEXT_ENCODERS = (
    "text encoders, which are not adapted here: a LoRA of the network alone fits (kohya's "
    "--network_train_unet_only)"
)
_LYCORIS = {"lokr_": "LoKr", "hada_": "LoHa", "oft_": "OFT", "glora": "GLoRA", "lora_mid": "CP",
            "dora_scale": "DoRA of LyCORIS", ".diff": "full differences"}  # fmt: skip
_LARGEST = 1e10  # of a weight or an alpha: alpha B A stays finite in float32
_SHOWN = 3  # keys of one kind that a message names


@dataclass(frozen=True)
class Lora:
    """What a file holds, in the names of the network.

    Attributes:
        tensors: ``<layer>.lora_A.weight`` ``[r, in]``, ``<layer>.lora_B.weight`` ``[out, r]``
            and so on, as peft names them.
        config: Of peft; None where the factor of each layer is 1, maybe folded into B.
        header: The file's own metadata.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any] | None
    header: Mapping[str, str]

    def layers(self) -> dict[str, tuple[Tensor, Tensor, float]]:
        """Return ``A``, ``B`` and the factor of ``B A`` of each layer."""
        names = [
            key.removesuffix(".lora_A.weight") for key in self.tensors if ".lora_A." in key
        ]
        return {
            name: (
                self.tensors[f"{name}.lora_A.weight"],
                self.tensors[f"{name}.lora_B.weight"],
                1.0 if self.config is None else _factor(self.config, name),
            )
            for name in names
        }


@dataclass(frozen=True)
class Target:
    """The network that a LoRA is for; its weights need not be there.

    Attributes:
        component: Its name in a pipeline, ``unet`` or ``transformer``.
        network: A diffusers model, maybe on torch's meta device.
        pipeline: The pipeline's class, which knows the names of other trainers.
    """

    component: str
    network: Any
    pipeline: Any


def read(path: Path, target: Target) -> Lora:
    """Read a LoRA.

    Args:
        path: The file; a folder of peft has its config beside it.
        target: What it is for.

    Raises:
        ArtifactError: It is damaged, holds numbers that are none, has a config that this
            version of peft does not know, or keys that the network cannot use.
    """
    tensors, header = _load(path)
    _refuse_endless(path, tensors)
    config = _config(path, header, target.component)
    groups, unknown = _grouped(tensors)
    with quiet():
        found, refused = _named(groups, target)
    unused = [*unknown, *refused]
    if unused:
        raise ArtifactError(
            f"{path} does not fit the base model in force, a {type(target.network).__name__}, "
            "and would be used in part: " + "; ".join(_counted(unused))
        )
    if not found:
        raise ArtifactError(
            f"{path} holds no weights for the {target.component} of this family"
        )
    if config is not None and any("alpha" in parts for parts in found.values()):
        raise ArtifactError(f"{path} gives alpha twice, in tensors and in {_METADATA}")
    if config is not None:
        _refuse_other_ranks(path, found, config)
    return Lora(dict(_tensors(found)), config, header)


def header_sorted(content: bytes) -> bytes:
    """Sort a file's metadata: safetensors writes them in an order drawn by chance."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    padded = text + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded + content[8 + length :]


def outputs(module: Any) -> int:
    """Return how many numbers a linear layer or a convolution gives."""
    return _sizes(module)[0]


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as opened:
            header = dict(opened.metadata() or {})
        return safetensors.torch.load_file(path), header
    except (safetensors.SafetensorError, OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} does not fit: it is damaged ({_line(error)})") from None


def _refuse_endless(path: Path, tensors: Mapping[str, Tensor]) -> None:
    odd = [key for key, one in tensors.items() if not (one.float().abs() < _LARGEST).all()]
    if odd:
        raise ArtifactError(
            f"{path} holds numbers that are none (NaN, infinite or above {_LARGEST:g}) in "
            f"{len(odd)} of {len(tensors)} tensors, such as {short(odd[0])}; its training "
            "diverged, take an earlier checkpoint"
        )


def _config(path: Path, header: Mapping[str, str], component: str) -> dict[str, Any] | None:
    """Peft's config, from the header or from the file beside."""
    beside = path.with_name(ADAPTER_CONFIG)
    try:
        if _METADATA in header:
            where = f"{path}, {_METADATA}"
            values = json_values(header[_METADATA])
        elif beside.is_file():
            where = str(beside)
            values = json_values(beside.read_text(encoding="utf-8"))
        else:
            return None
        if not isinstance(values, dict):
            raise UnreadableError(f"it should be an object, is {short(values)}")
    except (UnreadableError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{path} has a config of peft that cannot be read: {error}"
        ) from None
    prefix = f"{component}."
    own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    own = own if _METADATA in header else values
    return _known(own, where) if own else None


def _known(values: dict[str, Any], where: str) -> dict[str, Any]:
    """A config with keys that peft knows, and with which a LoRA here can be used."""
    fields = {one.name for one in dataclasses.fields(LoraConfig)}
    kept = {key: value for key, value in values.items() if key in fields}
    unknown = [key for key in values if key not in fields and values[key] not in (None, False)]
    if unknown:
        raise ArtifactError(
            f"{where} has {len(unknown)} keys that the installed peft does not know, the first "
            f"is {short(unknown[0])}; it was written by a newer peft, or by hand. Update peft, "
            "or remove the key"
        )
    try:
        with quiet():
            LoraConfig(**kept)
    except (TypeError, ValueError, AttributeError, LookupError, ImportError) as error:
        raise ArtifactError(f"{where} is no config of a LoRA: {_line(error)}") from None
    wrong = next(_wrong(kept), None)
    if wrong is not None:
        raise ArtifactError(f"{where}: {wrong}")
    return kept


def _wrong(config: Mapping[str, Any]) -> Iterator[str]:
    """What of a config decides the factor of a layer and is not as it should be."""
    for name in ("r", "lora_alpha"):
        if not _is_positive(config.get(name)):
            yield f"{name} should be a number above 0, is {short(config.get(name))}"
    for name in ("use_rslora", "use_dora"):
        if not isinstance(config.get(name) or False, bool):
            yield f"{name} should be true or false, is {short(config[name])}"
    for name in ("rank_pattern", "alpha_pattern"):
        known = config.get(name) or {}
        if not isinstance(known, dict) or not all(map(_is_positive, known.values())):
            yield f"{name} should give numbers above 0 by layer, is {short(known)}"
            continue
        for layer in known:
            try:
                re.compile(layer)
            except (re.error, OverflowError, RecursionError):
                yield f"{name} has {short(layer)}, which is no name of a layer"


def _is_positive(value: object) -> bool:
    """A number is above 0 and stays finite in float32; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= _LARGEST


_Groups = dict[str, dict[str, Tensor]]  # layer, as the file calls it: its parts
_Unused = tuple[str, str]  # why, key


def _grouped(tensors: Mapping[str, Tensor]) -> tuple[_Groups, list[_Unused]]:
    groups: _Groups = {}
    unused: list[_Unused] = []
    for key, tensor in tensors.items():
        layer, part = _split(key)
        if _TEXT.match(key):
            unused.append((_TEXT_ENCODERS, key))
        elif part is None:
            kind = next((name for sign, name in _LYCORIS.items() if sign in key), None)
            why = "weights that are no LoRA" if kind is None else f"{kind}, which is no LoRA"
            unused.append((why, key))
        else:
            groups.setdefault(layer, {})[part] = tensor
    return groups, unused


def _split(key: str) -> tuple[str, str | None]:
    """The layer, and which part of its LoRA a key is."""
    for part, suffixes in _PARTS.items():
        for suffix in suffixes:
            if key.endswith(suffix):
                return key.removesuffix(suffix), part
    return key, None


def _named(groups: _Groups, target: Target) -> tuple[_Groups, list[_Unused]]:
    """The layers by the network's own names, and what none is for."""
    resolve = _resolver(target)
    found: _Groups = {}
    refused: list[_Unused] = []
    for layer, parts in groups.items():
        if not {"A", "B"} <= parts.keys():
            refused.append(("halves of layers, A without B or B without A", layer))
            continue
        converted = resolve(layer, parts)
        if not converted:
            refused.append(("layers that the network does not have", layer))
        for name, own in converted.items():
            if name in found:
                refused.append(("layers that stand in the file twice", layer))
            elif misfit := _misfit(name, own, target.network):
                refused.append((misfit, layer))
            found[name] = own
    return found, refused


def _resolver(target: Target) -> Callable[[str, dict[str, Tensor]], _Groups]:
    """A function from a file's layer to the network's layers; none for an unknown one."""
    names = {
        name.replace(".base_layer", "")
        for name, module in target.network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and ".lora_" not in f".{name}."
    }
    flat = {name.replace(".", "_"): name for name in names}

    def resolve(layer: str, parts: dict[str, Tensor]) -> _Groups:
        plain = _plain(layer, target.component)
        for name in (plain, f"{plain}.0"):  # older diffusers wrote to_out for to_out.0
            if name in names or name in flat:
                return {flat.get(name, name): parts}
        return _converted(plain.replace(".", "_"), parts, target)

    return resolve


def _plain(layer: str, component: str) -> str:
    """A layer's name without what trainers put in front of it."""
    for prefix in (*_DOTTED, f"{component}.", *_DOTTED, *_FLAT):
        layer = layer.removeprefix(prefix)
    return layer.replace(".processor.", ".")


def _converted(flat: str, parts: dict[str, Tensor], target: Target) -> _Groups:
    """One layer through diffusers' converter of kohya's names; it may be several."""
    single = re.fullmatch(r"single_blocks_(\d+)_linear1", flat)
    if single and target.component == "transformer":
        own = _fused(f"single_transformer_blocks.{single[1]}", parts, target.network)
        if own:  # FLUX.2 has it as one layer, too
            return own
    kohya = {
        f"lora_unet_{flat}.lora_down.weight": parts["A"],
        f"lora_unet_{flat}.lora_up.weight": parts["B"],
    }
    options = {"unet_config": target.network.config} if target.component == "unet" else {}
    try:
        said = target.pipeline.lora_state_dict(kohya, **options)
    except (ValueError, LookupError, AssertionError, TypeError, RuntimeError, AttributeError):
        return {}  # its ways to say that it knows no such layer
    found = said[0] if isinstance(said, tuple) else said
    groups, unknown = _grouped({_modern(key): one for key, one in found.items()})
    own = {_plain(name, target.component): one for name, one in groups.items()}
    if unknown or not all({"A", "B"} <= one.keys() for one in own.values()):
        return {}
    return {name: {**one, **_alpha(parts, one)} for name, one in own.items()}


def _modern(key: str) -> str:
    """A key of diffusers' older names for a UNet in peft's."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    return str(next(iter(convert_unet_state_dict_to_peft({key: None}))))


def _fused(block: str, parts: dict[str, Tensor], network: Any) -> _Groups:
    """FLUX's ``linear1``, which is four layers in diffusers, for blocks of any width.

    diffusers' own converter knows FLUX.1's widths alone. All four share A; each has its rows
    of B.
    """
    members = [
        f"{block}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    ]
    try:
        sizes = [_sizes(network.get_submodule(name))[0] for name in members]
    except AttributeError:
        return {}
    if sum(sizes) != len(parts["B"]):
        return {}
    rows = torch.split(parts["B"], sizes)
    return {
        name: {"A": parts["A"], "B": row.contiguous(), **_alpha(parts, parts)}
        for name, row in zip(members, rows, strict=True)
    }


def _alpha(parts: Mapping[str, Tensor], of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Alpha for a layer whose rank may have become a share of the whole."""
    if "alpha" not in parts:
        return {}
    return {"alpha": parts["alpha"] * len(of["A"]) / len(parts["A"])}


def _sizes(module: Any) -> tuple[int, tuple[int, ...]]:
    """Outputs of a layer, and the shape that one row of A must have."""
    layer = getattr(module, "base_layer", module)
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels, (layer.in_channels, *layer.kernel_size)
    return layer.out_features, (layer.in_features,)


def _misfit(name: str, parts: Mapping[str, Tensor], network: Any) -> str:
    """Why a LoRA does not fit its layer; nothing if it does."""
    try:
        outside, inside = _sizes(network.get_submodule(name))
    except AttributeError:
        return "layers that the network does not have"
    a, b = parts["A"], parts["B"]
    if "alpha" in parts and parts["alpha"].numel() != 1:
        return "layers whose alpha is no number"
    if a.ndim < 2 or b.ndim != a.ndim or tuple(a.shape[1:]) != inside or len(b) != outside:
        return f"layers of another width (the base's {name} is {outside} x {inside[0]})"
    if a.shape[0] != b.shape[1]:
        return "layers whose A and B are of two ranks"
    return ""


def _refuse_other_ranks(path: Path, found: _Groups, config: Mapping[str, Any]) -> None:
    odd = [
        (name, _rank(config, name), len(parts["A"]))
        for name, parts in found.items()
        if _rank(config, name) != len(parts["A"])
    ]
    if odd:
        name, said, there = odd[0]
        raise ArtifactError(
            f"{path} says rank {said} in its config and has rank {there} in {name} "
            f"({len(odd)} of {len(found)} layers differ); config and weights are of two LoRAs"
        )


def _rank(config: Mapping[str, Any], layer: str) -> int:
    return int(_of_layer(config, "rank_pattern", layer, config["r"]))


def _factor(config: Mapping[str, Any], layer: str) -> float:
    """Alpha / rank, or alpha / sqrt(rank) of rsLoRA (Kalajdzievski, arXiv:2312.03732)."""
    rank = _rank(config, layer)
    alpha = float(_of_layer(config, "alpha_pattern", layer, config["lora_alpha"]))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _of_layer(config: Mapping[str, Any], patterns: str, layer: str, usual: Any) -> Any:
    known = config.get(patterns) or {}
    return known.get(get_pattern_key(list(known), layer), usual)


def _tensors(found: _Groups) -> Iterator[tuple[str, Tensor]]:
    """Tensors by peft's keys; a factor alpha / rank goes into B."""
    for name, parts in found.items():
        factor = parts["alpha"].item() / len(parts["A"]) if "alpha" in parts else 1.0
        for part, key in _KEYS.items():
            if part in parts:
                tensor = parts[part]
                scaled = part in {"B", "bias"} and factor != 1
                yield f"{name}.{key}", tensor.float() * factor if scaled else tensor


def _counted(unused: Sequence[_Unused]) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for why, key in unused:
        kinds.setdefault(why, []).append(key)
    return [
        f"{why} ({len(keys)}, such as {', '.join(map(short, keys[:_SHOWN]))})"
        for why, keys in kinds.items()
    ]


def _line(error: Exception) -> str:
    """An error of a library as one line that is not endless."""
    return " ".join(str(error).split())[:300]
