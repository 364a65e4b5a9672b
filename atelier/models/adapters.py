"""One base, several LoRAs: base, θ1 and θ are states of one network.

``use`` is the only switch. Forward passes of a state must be followed by their backward pass
before the next switch: a changed state between the two silently gives zero gradients.
"""

import contextlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import nn

from atelier import atomic
from atelier.errors import ArtifactError
from atelier.models import quiet
from atelier.params import LoRA

if TYPE_CHECKING:
    from atelier.models import Denoiser

FILE = "pytorch_lora_weights.safetensors"


def add(network: Any, name: str, lora: LoRA, *, seed: int) -> None:
    """Add a fresh adapter; it changes nothing until it is trained (B starts at zero)."""
    with torch.random.fork_rng(devices=[]), _several_are_meant():
        torch.manual_seed(seed)
        network.add_adapter(
            LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                use_rslora=lora.rslora,
                use_dora=lora.dora,
                lora_dropout=lora.dropout,
                target_modules=lora.targets,
                init_lora_weights=True,
            ),
            adapter_name=name,
        )
    for parameter in weights(network, name).values():
        parameter.data = parameter.data.float()  # adapters learn in float32 on any base
    network.eval()  # peft's layers come in training mode, in which dropout is on


def attach(painter: "Denoiser", name: str, folder: Path) -> None:
    """Load a saved adapter under ``name``.

    Raises:
        ArtifactError: It is absent, or was made for another base.
    """
    if not (folder / FILE).is_file():
        raise ArtifactError(f"{folder / FILE} is absent; run `dvc repro {_stage(folder)}`")
    try:
        with _several_are_meant():
            painter.network.load_lora_adapter(
                str(folder),
                prefix=painter.component,
                weight_name=FILE,
                adapter_name=name,
                use_safetensors=True,
            )
    except (RuntimeError, ValueError, LookupError) as error:
        raise ArtifactError(
            f"{folder / FILE} does not fit the base model in force: {error}"
        ) from None
    if name not in getattr(painter.network, "peft_config", {}):
        raise ArtifactError(
            f"{folder / FILE} holds no weights for the {painter.component} of this family"
        )
    for parameter in weights(painter.network, name).values():
        parameter.data = parameter.data.clone()  # out of the file's unaligned view
        parameter.requires_grad_(False)
    painter.network.eval()


def save(painter: "Denoiser", name: str, folder: Path) -> None:
    """Write an adapter as diffusers does, so that any of its pipelines loads it.

    The metadata carry rank and alpha; without them a loader guesses alpha. The same weights
    give the same bytes, which DVC and the registry know them by.

    Raises:
        DiskError: It cannot be written; an older file is untouched.
    """
    network = painter.network
    config = network.peft_config[name].to_dict()
    layers = get_peft_model_state_dict(network, adapter_name=name)
    with tempfile.TemporaryDirectory() as draft:
        type(painter.pipeline()).save_lora_weights(
            draft,
            **{
                f"{painter.component}_lora_layers": {
                    key: tensor.detach().cpu().contiguous() for key, tensor in layers.items()
                },
                f"{painter.component}_lora_adapter_metadata": json.loads(
                    json.dumps(config, default=_jsonable)
                ),
            },
        )
        content = (Path(draft) / FILE).read_bytes()
    atomic.write(folder / FILE, _canonical(content))


def _canonical(content: bytes) -> bytes:
    """Sort the header's metadata: safetensors writes them in an order drawn by chance."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    padded = text + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded + content[8 + length :]


def weights(network: Any, name: str) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters by their full name, in the network's order."""
    return {
        key: parameter
        for key, parameter in network.named_parameters()
        if f".{name}." in key and ".lora_" in key
    }


# What the network is: an adapter on the base; several, each with its share; the bare base.
State = str | Mapping[str, float] | None


@contextlib.contextmanager
def use(network: Any, state: State) -> Iterator[None]:
    """Inside, the network is the base with the adapters of ``state``, bare for None.

    Several adapters add up: ``{"a": 0.5, "b": 1}`` is base + delta_a / 2 + delta_b.

    On leaving, the state before is back, trainable weights included. The innermost adapters
    are trainable, as peft has it; run frozen ones under ``torch.no_grad``.
    """
    shares = {state: 1.0} if isinstance(state, str) else dict(state or {})
    layers: list[Any] = [
        module for module in network.modules() if isinstance(module, BaseTunerLayer)
    ]
    before = [
        (layer.disable_adapters, list(layer.active_adapters), dict(layer.scaling))
        for layer in layers
    ]
    trainable = [(p, p.requires_grad) for p in network.parameters()]
    try:
        for layer in layers:
            layer.enable_adapters(bool(shares))
            if shares:
                layer.set_adapter(list(shares))
            for name, share in shares.items():
                if name in layer.scaling:
                    layer.scaling[name] *= share
        yield
    finally:
        for layer, (disabled, active, scaling) in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
            layer.set_adapter(active)
            layer.enable_adapters(not disabled)
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def learning(network: Any, name: str) -> Iterator[None]:
    """Inside, adapter ``name`` is in force and its dropout is on; no other layer's is."""
    dropouts: list[nn.Module] = [
        module.lora_dropout[name]
        for module in network.modules()
        if isinstance(module, BaseTunerLayer) and name in module.lora_dropout
    ]
    with use(network, name):
        try:
            for dropout in dropouts:
                dropout.train()
            yield
        finally:
            for dropout in dropouts:
                dropout.eval()


@contextlib.contextmanager
def _several_are_meant() -> Iterator[None]:
    """Silence doubts about a second adapter on one network, which is our design.

    diffusers also lists, as missing, the keys of adapters whose name begins alike.
    """
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        warnings.filterwarnings("ignore", "While injecting the PEFT adapters", RuntimeWarning)
        yield


def _jsonable(value: object) -> object:
    return sorted(value) if isinstance(value, set) else str(value)


def _stage(folder: Path) -> str:
    """``artifacts/sft`` → sft; ``artifacts/cpo/cpo-s`` → cpo."""
    return folder.parts[1] if len(folder.parts) > 1 else folder.name
