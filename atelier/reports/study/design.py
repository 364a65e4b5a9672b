"""Design of a study: its experiments, and the choice of each method's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atelier.config.study import StudyParams
from atelier.reports.study.results import Found

MAIN = "methods"  # the kind of experiment that compares the methods


@dataclass(frozen=True)
class Experiment:
    """One run of the pipeline with changed settings.

    Attributes:
        name: Of its folder: the kind of experiment, then the seed.
        changes: Settings of the profile, by dotted names.
    """

    name: str
    changes: Mapping[str, Any]


def tuning_run(study: StudyParams) -> Experiment:
    """Return the run in which every configuration of every method paints for validation."""
    entries = {
        f"{name}-{number}": entry.model_dump(mode="json")
        for name, candidates in study.methods.items()
        for number, entry in enumerate(candidates, start=1)
    }
    part = {"generate.part": "validation", "generate.prompts": study.tuning_prompts}
    return Experiment("tuning", _changes(entries, study.tuning_seed) | part)


def choose(name: str, study: StudyParams, tuned: Found) -> int:
    """Return the configuration of a method, from 1, that did best on validation.

    The lowest #A_neg among those whose FID is no worse than the base's; where there is none,
    the lowest of all. Of equals, the first.
    """
    numbers = range(1, len(study.methods[name]) + 1)
    rows = {number: tuned.metrics[f"{name}-{number}"] for number in numbers}
    worst = tuned.metrics["base"].get("fid", float("inf"))
    sound = [number for number in numbers if rows[number].get("fid", 0.0) <= worst]
    return min(sound or numbers, key=lambda number: (rows[number]["negatives"], number))


def final_runs(study: StudyParams, chosen: Mapping[str, int]) -> list[Experiment]:
    """Return every run on the test part, the main comparison first."""
    methods = {
        name: study.methods[name][number - 1].model_dump(mode="json")
        for name, number in chosen.items()
    }
    own = methods[study.proposed]
    kinds: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {MAIN: (methods, {})}
    if study.guided is not None:
        guided = {name: methods[name] for name in study.guided.methods}
        guided["npo"] = study.guided.npo.model_dump(mode="json")
        dropouts = {"guided": 0.0, "guided-dropout": study.guided.caption_dropout}
        for kind, dropout in dropouts.items():
            kinds[kind] = (
                guided,
                {
                    "generate.guidance": study.guided.guidance,
                    "cpo.caption_dropout": dropout,
                },
            )
    if study.steps is not None:
        shorter = {name: methods[name] for name in study.steps.methods}
        for steps in study.steps.values:
            kinds[steps_kind(steps)] = shorter, {"cpo.training.steps": steps}
    if study.sweep is not None:
        field = study.sweep.field
        kinds["sweep"] = (
            {name: {**own, field: value} for name, value in swept(study).items()},
            {},
        )
    if study.variants:
        kinds["variants"] = {name: own | change for name, change in study.variants.items()}, {}
    for share in study.volumes:
        kinds[volume_kind(share)] = {study.proposed: own}, {"split.train_share": share}
    return [
        Experiment(f"{kind}-{seed}", _changes(objectives, seed) | more)
        for kind, (objectives, more) in kinds.items()
        for seed in study.seeds
    ]


def swept(study: StudyParams) -> dict[str, Any]:
    """Return the values of the sweep by the names of their objectives."""
    if study.sweep is None:
        return {}
    field = study.sweep.field.replace("_", "-")
    return {f"{field}-{value}".replace(".", "-"): value for value in study.sweep.values}


def steps_kind(steps: int) -> str:
    """Return the kind of the experiments with trainings of so many steps."""
    return f"steps{steps}"


def volume_kind(share: float) -> str:
    """Return the kind of the experiments with a share of the training part."""
    return f"volume{round(100 * share)}"


def _changes(objectives: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Objectives and seed of a run; θ1 keeps its own seed, as it teaches every method."""
    return {
        "cpo.objectives": dict(objectives),
        "cpo.featured": next(iter(objectives)),
        "cpo.training.seed": seed,
        "generate.seed": seed,
    }
