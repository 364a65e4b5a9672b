"""Load the base model that ``model:`` names, by its family."""

from collections.abc import Callable

from atelier.config.model import ModelParams
from atelier.models.denoiser import Denoiser


def load(params: ModelParams) -> Denoiser:
    """Load the painter that ``model:`` names.

    Raises:
        ParamsError: Its tokenizer files are missing.
        ArtifactError: The folder is absent or is no model of that family.
    """
    from atelier.models.families import flux, sd3, sdxl

    loaders: dict[str, Callable[[ModelParams], Denoiser]] = {
        "flux": flux.load,
        "sd3": sd3.load,
        "sdxl": sdxl.load,
    }
    return loaders[params.family](params)
