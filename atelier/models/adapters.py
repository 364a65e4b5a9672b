"""Adapters: states of one network (base, θ1, θ), each a LoRA or full weights; ``use`` switches.

A LoRA is added to the base. A full state is a second set of all weights, in float32: ``use``
puts its parameters into the modules in place of the base's, so they are not copied, and buffers
and code are shared.

``use`` is the only switch. Forward passes of a state must be followed by their backward pass
before the next switch: a changed state between the two silently gives zero gradients.
"""

import contextlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from atelier import atomic, checksums
from atelier.config.training import Learns
from atelier.errors import ArtifactError, ParamsError
from atelier.models.denoiser import quiet
from atelier.models.files import lora_files, weight_files
from atelier.models.files.weight_files import FILE as FILE
from atelier.models.files.weight_files import FULL as FULL
from atelier.models.files.weight_files import file as file

if TYPE_CHECKING:
    from atelier.models.denoiser import Denoiser

_CONFIG = "config.json"
_LONGEST = 300  # characters of a library's message that ours repeats


def add(network: Any, name: str, lora: Learns, *, seed: int) -> None:
    """Add a fresh state; it changes nothing until it is trained.

    A LoRA's B starts at zero, full weights as the base's.

    Raises:
        ParamsError: ``lora.targets`` names no layer of the network, or one without weights.
    """
    if lora == "full":
        full = _full(network)
        full.states[name] = {
            key: nn.Parameter(parameter.detach().float().clone())
            for key, parameter in full.base.items()
        }
        return
    with torch.random.fork_rng(devices=[]), _several_are_meant():
        torch.manual_seed(seed)
        try:
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
        except ValueError as error:
            said = " ".join(str(error).split())[:_LONGEST]
            raise ParamsError(
                f"lora.targets {lora.targets!r} does not fit a {type(network).__name__}: "
                f"{said}. Name linear layers of it, as to_q or layers.0.attention.to_q, or "
                "write all-linear"
            ) from error
    for parameter in weights(network, name).values():
        parameter.data = parameter.data.float()  # adapters learn in float32 on any base
    network.eval()  # peft's layers come in training mode, in which dropout is on


def copy(network: Any, source: str, name: str) -> None:
    """Let state ``name`` begin as ``source`` is.

    Raises:
        ArtifactError: They are of two shapes.
    """
    theirs, own = weights(network, source), weights(network, name)
    there = {key.replace(f".{source}.", f".{name}."): tensor for key, tensor in theirs.items()}
    configs = [getattr(network, "peft_config", {}).get(one) for one in (source, name)]
    scales = [one and (one.r, one.lora_alpha, one.use_rslora, one.use_dora) for one in configs]
    if {k: t.shape for k, t in there.items()} != {k: t.shape for k, t in own.items()} or (
        scales[0] != scales[1]
    ):
        raise ArtifactError(
            f"{name} cannot begin as {source}: one has {_shape(configs[0], theirs)}, the other "
            f"{_shape(configs[1], own)}; give both one `lora:`, or train {source} again"
        )
    for key, parameter in own.items():
        parameter.data.copy_(there[key].data)


def _shape(config: Any, parameters: Mapping[str, nn.Parameter]) -> str:
    if config is None:
        return f"{len(parameters)} full weights"
    return (
        f"a LoRA of rank {config.r}, alpha {config.lora_alpha:g}, on {len(parameters)} weights"
    )


def attach(painter: "Denoiser", name: str, place: Path) -> None:
    """Load a saved state under ``name``: full weights, or a LoRA of any trainer.

    Args:
        painter: Whose network gets the state.
        name: What it is called from now on.
        place: The folder of a stage; or a file or folder that a person brought.

    Raises:
        ArtifactError: It is absent, damaged, or made for another base.
    """
    path = weight_files.brought(place)
    if path is None:
        raise absent(place)
    _refuse_damaged(path)
    if path.name == FULL:
        _attach_full(painter.network, name, path)
        return
    target = lora_files.Target(painter.component, painter.network, type(painter.pipeline()))
    _attach_lora(painter, name, lora_files.read(path, target), path)


def absent(folder: Path) -> ArtifactError:
    """Return the error for a stage's folder without weights; says which stage makes them."""
    return ArtifactError(f"{folder / FILE} is absent; run `dvc repro {_stage(folder)}`")


def _attach_lora(painter: "Denoiser", name: str, lora: lora_files.Lora, path: Path) -> None:
    network, prefix = painter.network, painter.component
    try:
        with _several_are_meant():
            network.load_lora_adapter(
                {f"{prefix}.{key}": tensor for key, tensor in lora.tensors.items()},
                prefix=prefix,
                adapter_name=name,
                metadata=None
                if lora.config is None
                else {f"{prefix}.{key}": value for key, value in lora.config.items()},
            )
    except (RuntimeError, ValueError, LookupError) as error:
        said = " ".join(str(error).split())[:_LONGEST]
        raise ArtifactError(f"{path} does not fit the base model in force: {said}") from None
    left = dict(lora.tensors)
    for key, parameter in weights(network, name).items():
        tensor = left.pop(_in_the_file(key, name), None)
        if tensor is None:
            raise ArtifactError(
                f"{path} lacks {_in_the_file(key, name)}, which its config asks"
            )
        # Cloned out of the file's unaligned view; in float32 on any base, as it was trained.
        parameter.data = tensor.to(parameter.device, torch.float32, copy=True)
        parameter.requires_grad_(False)
    if left:
        raise ArtifactError(f"{path}: {len(left)} tensors were not used, such as {min(left)}")
    network.eval()


def _in_the_file(key: str, name: str) -> str:
    """A parameter's key in the file, which knows no name of an adapter."""
    before, _, after = key.rpartition(f".{name}.")
    return before if before.endswith("lora_magnitude_vector") else f"{before}.{after}"


def _refuse_damaged(path: Path) -> None:
    if path.is_file() and checksums.damaged(path, _sum_of(path)):
        raise ArtifactError(
            f"{path} is damaged: its checksum differs from {_sum_of(path).name}; remove "
            f"{path.parent} and run `dvc repro {_stage(path.parent)}`"
        )


def _sum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _attach_full(network: Any, name: str, path: Path) -> None:
    """Load full weights.

    Raises:
        ArtifactError: They are damaged, or are those of another network.
    """
    full = _full(network)
    base = full.base
    device = next(iter(base.values())).device
    try:
        found = safetensors.torch.load_file(path, device=str(device))
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from None
    odd = sorted(
        key
        for key in base.keys() | found.keys()
        if key not in base or key not in found or base[key].shape != found[key].shape
    )
    if odd:
        raise ArtifactError(
            f"{path} does not fit the base model in force: {len(odd)} of its weights "
            f"are absent, unknown or of another shape, the first is {odd[0]}"
        )
    full.states[name] = {  # cloned: out of the file's unaligned view
        key: nn.Parameter(found[key].clone(), requires_grad=False) for key in base
    }


def lora(painter: "Denoiser", name: str) -> lora_files.Lora:
    """Return a LoRA that is in memory, on the CPU."""
    state = get_peft_model_state_dict(painter.network, adapter_name=name)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    return lora_files.Lora(tensors, painter.network.peft_config[name].to_dict(), {})


def save(painter: "Denoiser", name: str, folder: Path) -> None:
    """Write a state as diffusers does: a LoRA any of its pipelines loads, a model else.

    Of the two kinds only this one lies in the folder afterwards. A LoRA's metadata carry rank
    and alpha; without them a loader guesses alpha. The same weights give the same bytes, which
    DVC and the registry know them by.

    Raises:
        DiskError: It cannot be written; an older file is untouched.
    """
    network = painter.network
    for kind in (FULL, FILE):
        _sum_of(folder / kind).unlink(missing_ok=True)  # it is of what lies there now
    if name in _states(network):
        _save_full(network, name, folder)
        checksums.write(folder / FULL, _sum_of(folder / FULL))
        (folder / FILE).unlink(missing_ok=True)
        return
    own = lora(painter, name)
    with tempfile.TemporaryDirectory() as draft:
        type(painter.pipeline()).save_lora_weights(
            draft,
            **{
                f"{painter.component}_lora_layers": own.tensors,
                f"{painter.component}_lora_adapter_metadata": json.loads(
                    json.dumps(own.config, default=_jsonable)
                ),
            },
        )
        content = (Path(draft) / FILE).read_bytes()
    atomic.write(folder / FILE, lora_files.header_sorted(content))
    checksums.write(folder / FILE, _sum_of(folder / FILE))
    (folder / FULL).unlink(missing_ok=True)


def _save_full(network: Any, name: str, folder: Path) -> None:
    """Write full weights and the network's config; straight to disk, they may be 50 GB."""
    config = json.loads(network.to_json_string())
    config.pop("_name_or_path", None)  # a place on this machine
    atomic.write(folder / _CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    tensors = {key: p.detach().contiguous() for key, p in _states(network)[name].items()}
    with atomic.replacing(folder / FULL) as file:
        safetensors.torch.save_file(tensors, file.name, {"format": "pt"})


def weights(network: Any, name: str) -> dict[str, nn.Parameter]:
    """Return the state's parameters by their full name, in the network's order."""
    states = _states(network)
    if name in states:
        return dict(states[name])
    return {
        key: parameter
        for key, parameter in network.named_parameters()
        if f".{name}." in key and ".lora_" in key
    }


@dataclass
class _Full:
    """Full states of a network: where its parameters are, the base's, and theirs."""

    places: dict[str, tuple[nn.Module, str]]  # module and attribute, by the parameter's name
    base: dict[str, nn.Parameter]
    states: dict[str, dict[str, nn.Parameter]] = field(default_factory=dict)

    def now(self) -> dict[str, nn.Parameter]:
        """Return the parameters in force."""
        return {key: getattr(module, at) for key, (module, at) in self.places.items()}

    def put(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put these in force."""
        for key, (module, at) in self.places.items():
            setattr(module, at, parameters[key])


def _full(network: Any) -> _Full:
    """Return the network's full states; to be asked first while the base is in force.

    peft wraps modules that a LoRA is on, and their parameters' names get a part more; the
    modules themselves, which are remembered here, stay.
    """
    if not hasattr(network, "full_states"):
        if getattr(network, "hf_quantizer", None) is not None:
            raise ParamsError(
                "full weights need a base in full precision: set model.quantise to null, or "
                "give a LoRA"
            )
        places = {
            f"{path}.{at}".replace(".base_layer.", ".").removeprefix("."): (module, at)
            for path, module in network.named_modules()
            for at in module._parameters
            if module._parameters[at] is not None and ".lora_" not in f".{path}."
        }
        base = {key: getattr(module, at) for key, (module, at) in places.items()}
        network.full_states = _Full(places, base)
    found: _Full = network.full_states
    return found


def _states(network: Any) -> Mapping[str, dict[str, nn.Parameter]]:
    """Full states by name; of a network with LoRAs alone, none."""
    return network.full_states.states if hasattr(network, "full_states") else {}


# What the network is: an adapter on the base; several, each with its share; the bare base.
State = str | Mapping[str, float] | None


@contextlib.contextmanager
def use(network: Any, state: State) -> Iterator[None]:
    """Inside, the network is the base with the adapters of ``state``, bare for None.

    Several adapters add up: ``{"a": 0.5, "b": 1}`` is base + delta_a / 2 + delta_b. A full
    state stands alone.

    On leaving, the state before is back, trainable weights included. The innermost state's
    own weights require gradients, as peft has it, also where gradients are off: torch chooses
    kernels by that flag, so it is part of the state, which then predicts the same to the last
    bit in training and in painting. Run frozen states under ``torch.no_grad``.

    Raises:
        ParamsError: Full weights were to be added up.
    """
    shares = {state: 1.0} if isinstance(state, str) else dict(state or {})
    with _in_place(network, shares):
        yield from _adapted(network, shares)


def _adapted(network: Any, shares: Mapping[str, float]) -> Iterator[None]:
    """Switch the LoRAs of ``shares`` on and all others off."""
    shares = {name: share for name, share in shares.items() if name not in _states(network)}
    layers = _layers(network)
    if not torch.is_grad_enabled():
        own = [p for name in shares for p in _own(network, name)]
        yield from _switched(layers, shares, own)
        return
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


def _layers(network: Any) -> list[Any]:
    """Return the layers with LoRAs; searched again only after the adapters changed.

    The walk over all modules, at each switch, costs hundredths of a small network's step.
    """
    configs = list(getattr(network, "peft_config", {}).values())
    known: tuple[list[Any], list[Any]] | None = getattr(network, "tuned_layers", None)
    # Compared by identity: an adapter of the same name may be on other layers.
    if known is None or list(map(id, known[0])) != list(map(id, configs)):
        found = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
        known = network.tuned_layers = (configs, found)
    return known[1]


def _own(network: Any, name: str) -> list[nn.Parameter]:
    """Return the weights of the LoRA ``name``; searched again only after it changed."""
    known: dict[str, tuple[Any, list[nn.Parameter]]] = vars(network).setdefault("lora_own", {})
    config = network.peft_config[name]
    if name not in known or known[name][0] is not config:
        known[name] = (config, list(weights(network, name).values()))
    return known[name][1]


def _switched(
    layers: Sequence[Any], shares: Mapping[str, float], own: Sequence[nn.Parameter]
) -> Iterator[None]:
    """As above where nothing learns: of the flags only those of the state's ``own`` are set.

    peft's own switches walk over all weights of all adapters, which in a step of small
    networks costs a twentieth of the passes.

    The flags matter although nothing learns: ``torch.matmul`` of a batch whose memory is not
    in order and of weights that require gradients makes one product of matrices, else one for
    each image, and on some processors the two sum in another order.
    """
    before = [
        (layer._disable_adapters, layer._active_adapter, dict(layer.scaling))
        for layer in layers
    ]
    frozen = [parameter for parameter in own if not parameter.requires_grad]
    partial = {name: share for name, share in shares.items() if share != 1}
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for layer in layers:
            values = vars(layer)  # set as attributes of a module, they take ten times as long
            values["_disable_adapters"] = not shares
            if shares:
                values["_active_adapter"] = list(shares)
            for name, share in partial.items():
                if name in layer.scaling:
                    layer.scaling[name] *= share
        yield
    finally:
        for layer, (disabled, active, scaling) in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
            vars(layer).update(_active_adapter=active, _disable_adapters=disabled)
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextlib.contextmanager
def _in_place(network: Any, shares: Mapping[str, float]) -> Iterator[None]:
    """Inside, the parameters of the full state among ``shares`` are in force, or the base's."""
    states = _states(network)
    named = [name for name in shares if name in states]
    if named and (len(shares) > 1 or shares[named[0]] != 1):
        raise ParamsError(
            f"{named[0]!r} is full weights, which cannot be added up in shares "
            f"({dict(shares)}); train it with `lora:` as a LoRA"
        )
    if not states:
        yield
        return
    full: _Full = network.full_states
    entered = states[named[0]] if named else full.base
    before = full.now()
    trainable = [(p, p.requires_grad) for p in entered.values()]
    try:
        for parameter in entered.values():
            parameter.requires_grad_(bool(named))
        full.put(entered)
        yield
    finally:
        full.put(before)
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def resting(network: Any) -> Iterator[None]:
    """Inside, no dropout is on."""
    learning = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in learning:
            module.training = True


@contextlib.contextmanager
def standing_in(
    parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]
) -> Iterator[None]:
    """Inside, the parameters have these values; use it without gradients."""
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = values[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]


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
