"""Keys of the objectives' weights: hashes of everything that decides them.

No torch is imported: ``python -m flows plan`` asks which objectives would be trained. A module
of its own, because a stage that imports what reads the objectives depends on their code.
"""

import json
from pathlib import Path

from pydantic import BaseModel

from atelier.config.pairs import TablePairs
from atelier.config.profile import Profile
from atelier.models.files import weight_files
from tasks import code
from tasks.run import paths, resume
from tasks.training import keys


def of(profile: Profile) -> dict[str, str]:
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
        keys.base(profile),
    )
    pairs = resume.key(*_pairs(profile))
    made_by = code.now("cpo", {one.objective for one in params.objectives.values()})
    return {
        name: resume.key(
            one,
            inputs,
            pairs if one.needs_pairs else "",
            *keys.origin(one.init),
            json.dumps([made_by["common"], made_by["objectives"][one.objective]]),
        )
        for name, one in params.objectives.items()
    }


def _pairs(profile: Profile) -> list[BaseModel | Path]:
    params = profile.cpo.pairs
    table = [paths.DATA / params.table] if isinstance(params, TablePairs) else []
    return [*([] if params is None else [params]), *table]
