"""Sizes of the bases that params/ name, known without the hub (``published.yaml``)."""

from pathlib import Path
from typing import Any

import yaml

from atelier.models.denoiser import quiet

_FILE = Path(__file__).with_suffix(".yaml")
_NETWORKS = ("unet", "transformer")


def network(source: str, device: str = "meta") -> Any:
    """Return the network of a base; None if it is not known here.

    Args:
        source: The base's id on the hub.
        device: Where its weights are made: without content on ``meta``, random elsewhere.
    """
    found = [part for name, part in _known(source).items() if name in _NETWORKS]
    return _built(found[0], device).requires_grad_(False) if found else None


def beside(source: str) -> dict[str, Any]:
    """Return codec and text encoders by their names; none if the base is not known here."""
    known = _known(source).items()
    return {name: _built(part) for name, part in known if name not in _NETWORKS}


def _known(source: str) -> dict[str, dict[str, Any]]:
    """Class and arguments of each part of a base; none of a folder's, which says its own."""
    if Path(source).is_dir():
        return {}
    every = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = every.get(source, {})
    return found


def _built(part: dict[str, Any], device: str = "meta") -> Any:
    import diffusers
    import torch
    import transformers

    ((name, config),) = part.items()
    with quiet(), torch.device(device):
        if hasattr(diffusers, name):
            return getattr(diffusers, name).from_config(config)
        kind = getattr(transformers, name)
        return kind(kind.config_class(**config))
