"""Stage ``cpo``: Complex Preference Optimization; each objective's result is a θ."""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

from atelier import atomic, models
from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Record
from atelier.models import Denoiser, adapters
from atelier.params import CPO, CPOS, Profile
from atelier.training import drift, loop, steps
from tasks import corpus, paths, progress, resume
from tasks.curve import Curve
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
    records = annotations.read(paths.SPLIT / "train.jsonl", Record)
    criteria = tree.parse(paths.JUDGED_BY)
    painter = models.load(profile.model)
    adapters.attach(painter, _TEACHER, paths.SFT)
    prompts = Prompts(painter, criteria, profile.cpo.training.seed)
    encoded = corpus.encode(
        painter,
        records,
        {
            "caption": [[prompts.write(record, ())] for record in records],
            "labelled": [[prompts.good(record)] for record in records],
            "flipped": [[prompts.flipped(record)] for record in records],
            "loser": [[prompts.bad(record)] for record in records],
        },
        profile,
    )
    for name, objective in profile.cpo.objectives.items():
        rows = {**encoded.rows, "winner": encoded.rows[objective.winner]}
        metrics = _align(
            name, objective, painter, dataclasses.replace(encoded, rows=rows), profile, tracked
        )
        metrics |= prompts.tally()
        atomic.write(paths.CPO / name / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        tracked.metrics({f"{name}/{key}": value for key, value in metrics.items()})
    for name in profile.cpo.objectives:
        resume.done(_work(name, profile))


def _align(
    name: str,
    objective: CPO | CPOS,
    painter: Denoiser,
    encoded: steps.Corpus,
    profile: Profile,
    tracked: StageRun,
) -> dict[str, float]:
    """Train one θ, or take the rest of its way; return what the monitor said last."""
    params = profile.cpo
    adapters.add(painter.network, name, params.lora, seed=params.training.seed)
    work = _work(name, profile)
    with (
        progress.bar(name, params.training.steps, "steps") as bar,
        adapters.use(painter.network, name),
    ):
        curve = Curve(work, name, bar, tracked)
        trained = adapters.weights(painter.network, name)
        weights = loop.fit(
            trained,
            steps.complex_preference(
                painter, encoded, objective, params.training, teacher=_TEACHER, policy=name
            ),
            learning_rate=objective.learning_rate,
            params=params.training,
            folder=work,
            report=_Watch(name, curve).report,
        )
    for key, parameter in trained.items():
        parameter.data.copy_(weights[key])
    adapters.save(painter, name, paths.CPO / name)
    curve.write(paths.CPO / name / "curve.tsv")
    tracked.file(paths.CPO / name / "curve.tsv")
    last = curve.last()
    return {
        key: last[key] for key in ("loss", "accuracy", "drift", "win_error", "lose_error")
    } | {"drifting": float(drift.drifted(curve.rows()))}


class _Watch:
    """Passes reports on, and says once when a run drifts instead of learning."""

    def __init__(self, name: str, curve: Curve) -> None:
        self._name, self._curve = name, curve
        self._alarm = drift.Alarm()
        self._rang = False

    def report(self, step: int, values: Mapping[str, float]) -> None:
        self._curve.report(step, values)
        if "aim_error" in values and self._alarm.drifting(values) and not self._rang:
            self._rang = True
            warnings.warn(
                f"{self._name} drifts at step {step}: it is farther from its target than the "
                "untouched base. Lower learning_rate or omega, or raise beta",
                stacklevel=2,
            )


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
