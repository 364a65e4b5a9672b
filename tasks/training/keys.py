"""Keys of θ1 and of the base: hashes of everything that decides their weights."""

import json
from pathlib import Path

from atelier.config.profile import Profile
from tasks import code
from tasks.run import paths, resume


def base(profile: Profile) -> Path | str:
    """Return what tells two bases apart: the folder, or the hub id at its commit."""
    folder = Path(profile.model.source)
    return folder if folder.is_dir() else f"{profile.model.source}@{profile.model.revision}"


def sft(profile: Profile) -> str:
    """Return the key of θ1."""
    return resume.key(
        profile.sft,
        profile.model,
        paths.SPLIT / "train.jsonl",
        paths.JUDGED_BY,
        base(profile),
        json.dumps(code.now("sft")),
    )
