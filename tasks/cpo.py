"""Stage ``cpo``: Complex Preference Optimization; each objective's result is a θ."""

import dataclasses
import json
from pathlib import Path

from atelier import atomic, models
from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Record
from atelier.models import Denoiser, adapters
from atelier.params import CPO, CPOS, Profile
from atelier.training import drift, ranks, steps
from atelier.training.ranks import Ranks
from tasks import corpus, paths, resume, teaching
from tasks.grids import Grids
from tasks.prompts import Prompts
from tasks.tracking import StageRun

_TEACHER = "theta1"


def run(profile: Profile, tracked: StageRun) -> None:
    """Align the base model with the targets that θ1 gives, once for each objective.

    Reads ``paths.SPLIT``, ``paths.SFT`` and the pictures; writes one LoRA with its curve and
    metrics for each objective under ``paths.CPO``.

    Raises:
        ArtifactError: An input is absent, or belongs to another base model.
    """
    together = ranks.join()
    records = annotations.read(paths.SPLIT / "train.jsonl", Record)
    criteria = tree.parse(paths.JUDGED_BY)
    painter = models.load(profile.model)
    adapters.attach(painter, _TEACHER, paths.SFT)
    prompts = Prompts(painter, criteria, profile.cpo.training.seed)
    grids = Grids(painter, profile.cpo.training.grids, profile.model.pixels)
    encoded = corpus.encode(
        painter,
        records,
        {
            "caption": [[prompts.write(record, ())] for record in records],
            "labelled": [[prompts.good(record)] for record in records],
            "flipped": [[prompts.flipped(record)] for record in records],
            "loser": [[prompts.bad(record)] for record in records],
            **grids.roles(),
        },
        profile,
    )
    for name, objective in profile.cpo.objectives.items():
        rows = {**encoded.rows, "winner": encoded.rows[objective.winner]}
        corpus_of = dataclasses.replace(encoded, rows=rows)
        metrics = _align(name, objective, painter, corpus_of, profile, tracked, together, grids)
        if not together.first:
            continue
        metrics |= prompts.tally()
        atomic.write(paths.CPO / name / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        tracked.metrics({f"{name}/{key}": value for key, value in metrics.items()})
    if not together.first:
        return
    for name in profile.cpo.objectives:
        resume.done(_work(name, profile))


def _align(
    name: str,
    objective: CPO | CPOS,
    painter: Denoiser,
    encoded: steps.Corpus,
    profile: Profile,
    tracked: StageRun,
    together: Ranks,
    grids: Grids,
) -> dict[str, float]:
    """Train one θ, or take the rest of its way; return what the monitor said last."""
    params = profile.cpo
    adapters.add(painter.network, name, params.lora, seed=params.training.seed)
    work = _work(name, profile)
    with adapters.learning(painter.network, name):
        curve = teaching.teach(
            name,
            painter,
            adapters.weights(painter.network, name),
            steps.complex_preference(
                painter, encoded, objective, params.training, teacher=_TEACHER, policy=name
            ),
            learning_rate=objective.learning_rate,
            params=params.training,
            work=work,
            tracked=tracked,
            ranks=together,
            curve_name=name,
            look=lambda done: grids.look(name, encoded, done, tracked),
        )
    if not together.first:
        return {}
    adapters.save(painter, name, paths.CPO / name)
    curve.write(paths.CPO / name / "curve.tsv")
    tracked.file(paths.CPO / name / "curve.tsv")
    last = curve.last()
    return {
        key: last[key] for key in ("loss", "accuracy", "drift", "win_error", "lose_error")
    } | {"drifting": float(drift.drifted(curve.rows()))}


def _work(name: str, profile: Profile) -> Path:
    return resume.folder(
        f"cpo-{name}",
        profile.cpo.objectives[name],
        profile.cpo.lora,
        profile.cpo.training,
        profile.model,
        paths.SPLIT / "train.jsonl",
        paths.SFT / adapters.FILE,
        paths.JUDGED_BY,
        corpus.weights_of(profile),
    )
