"""Load the base model that ``model:`` names, by its family; or its outline without weights."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from atelier import quick_imports
from atelier.config.model import ModelParams
from atelier.errors import ArtifactError
from atelier.models.costs import published
from atelier.models.denoiser import Denoiser, quiet

if TYPE_CHECKING:
    from atelier.models.files.lora_files import Target


def load(params: ModelParams) -> Denoiser:
    """Load the painter that ``model:`` names; its network is loaded when it is first needed.

    Raises:
        ParamsError: Its tokenizer files are missing; or its network cannot attend as asked.
        ArtifactError: The folder is absent or is no model of that family.
    """
    painter: Denoiser = family(params.family).load(params)
    painter.codec_pixels = params.codec.pixels_at_once
    return painter


def family(name: str) -> ModuleType:
    """Return the module of a model family; those of the others are not imported."""
    with quick_imports.uncollected():
        return importlib.import_module(f"atelier.models.families.{name}")


def skeleton(params: ModelParams) -> "Target":
    """Return the network that ``model:`` names without its weights, on torch's meta device.

    Only configurations are read (of a hub id, fetched: some kilobytes).

    Raises:
        ArtifactError: The folder is absent or is no pipeline.
    """
    import diffusers
    import torch

    from atelier.models.files.lora_files import Target

    try:
        with quiet():
            index = diffusers.DiffusionPipeline.load_config(
                params.source, revision=params.revision
            )
            component = "unet" if "unet" in index else "transformer"
            kind = getattr(diffusers, index[component][1])
            config = kind.load_config(
                params.source, subfolder=component, revision=params.revision
            )
            with torch.device("meta"):
                network = kind.from_config(config)
            pipeline = getattr(diffusers, index["_class_name"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        there = Path(params.source).is_dir()
        raise ArtifactError(
            f"model.source {params.source!r} "
            + ("is no pipeline of diffusers" if there else "is no folder here, nor reachable")
            + f": {error}"
        ) from None
    return Target(component, network.requires_grad_(False), pipeline)


def network(params: ModelParams) -> Any:
    """Return the network as ``skeleton`` has it; of a base in params/, without the hub.

    Raises:
        ArtifactError: The folder is absent or is no pipeline.
    """
    known = published.network(params.source)
    return skeleton(params).network if known is None else known


def outlines(params: ModelParams) -> dict[str, Any]:
    """Return codec and text encoders of the base without weights, by their names in it.

    Those of a base in params/ are known without the hub.

    Raises:
        ArtifactError: The folder is absent or is no pipeline.
    """
    if known := published.beside(params.source):
        return known
    import diffusers
    import torch
    import transformers

    from atelier.models.codec import PatchPCA

    found: dict[str, Any] = {}
    at = {"revision": params.revision}
    try:
        index = diffusers.DiffusionPipeline.load_config(params.source, **at)
        for name, part in index.items():
            if name == "vae":
                kind = PatchPCA if part[1] == PatchPCA.__name__ else getattr(diffusers, part[1])
                config = kind.load_config(params.source, subfolder=name, **at)
                with torch.device("meta"):
                    found[name] = kind.from_config(config)
            elif name.startswith("text_encoder") and part[0] is not None:
                kind = getattr(transformers, part[1])
                config = kind.config_class.from_pretrained(params.source, subfolder=name, **at)
                with torch.device("meta"):
                    found[name] = kind(config)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"model.source {params.source!r}: the configuration of its codec or text encoders "
            f"cannot be read: {error}"
        ) from None
    return found


def predicts(params: ModelParams) -> str | None:
    """Return what an SDXL's network answers, ``epsilon`` or ``v``; None if nothing says it.

    Raises:
        ArtifactError: The folder is no pipeline.
    """
    from diffusers import DDPMScheduler

    try:
        with quiet():
            config = DDPMScheduler.load_config(
                params.source, subfolder="scheduler", revision=params.revision
            )
    except OSError as error:
        raise ArtifactError(
            f"model.source {params.source!r} has no scheduler: {error}"
        ) from None
    said = config.get("prediction_type")
    return {"epsilon": "epsilon", "v_prediction": "v"}.get(said)
