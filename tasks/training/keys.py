"""Keys of a training's start: the base, and a LoRA of another trainer."""

from pathlib import Path

from atelier.config.profile import Profile
from atelier.models.files import weight_files


def base(profile: Profile) -> Path | str:
    """Return the folder of the base, or its hub id at its commit."""
    folder = Path(profile.model.source)
    return folder if folder.is_dir() else f"{profile.model.source}@{profile.model.revision}"


def origin(init: str) -> list[Path]:
    """Return the files of the LoRA that a training begins as; none for the base and θ1.

    Raises:
        ArtifactError: It holds several LoRAs, or a pickle.
    """
    return [] if init in {"base", "sft"} else weight_files.parts(Path(init))
