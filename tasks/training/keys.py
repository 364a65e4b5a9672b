"""Key of the base model, a part of the keys of everything that is made with it."""

from pathlib import Path

from atelier.config.profile import Profile


def base(profile: Profile) -> Path | str:
    """Return the folder of the base, or its hub id at its commit."""
    folder = Path(profile.model.source)
    return folder if folder.is_dir() else f"{profile.model.source}@{profile.model.revision}"
