"""Keys of what the trainings make: hashes of everything that decides the weights.

No torch is imported: ``python -m flows plan`` asks which objectives would be trained.
"""

import json
from pathlib import Path

from pydantic import BaseModel

from atelier.config.objectives import Pairwise, TablePairs
from atelier.config.profile import Profile
from atelier.models import weight_files
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


def objectives(profile: Profile) -> dict[str, str]:
    """Return the key of each objective's θ, by the objective's name."""
    params = profile.cpo
    inputs = resume.key(
        f"{params.caption_dropout} {params.attribute_draws}",
        params.lora,
        params.training,
        profile.model,
        paths.SPLIT / "train.jsonl",
        weight_files.file(paths.SFT),
        paths.JUDGED_BY,
        base(profile),
    )
    pairs = resume.key(*_pairs(profile))
    kinds = {one.objective for one in params.objectives.values()}
    made_by = code.now("cpo", kinds)
    return {
        name: resume.key(
            one,
            inputs,
            pairs if isinstance(one, Pairwise) else "",
            json.dumps([made_by["common"], made_by["objectives"][one.objective]]),
        )
        for name, one in params.objectives.items()
    }


def _pairs(profile: Profile) -> list[BaseModel | Path]:
    params = profile.cpo.pairs
    table = [paths.DATA / params.table] if isinstance(params, TablePairs) else []
    return [*([] if params is None else [params]), *table]
