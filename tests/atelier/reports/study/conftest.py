"""A small study with results of every kind of experiment, without an experiment."""

import numpy as np
import pytest
import yaml

from atelier.config.study import StudyParams
from atelier.reports.study import design
from atelier.reports.study.results import Found

STUDY = """
profile: toy
seeds: [0, 1]
tuning_prompts: 2
settings: {generate.steps: 3, generate.prompts: 8}
guidance: 2.0
sound: 1.25
box: {negatives: 1.0, fid: 1.5, diversity: 0.5}
goal: {negatives: 3, independent: 3, fid: 20}
proposed: [inside]
repeated: [inside]
methods:
  inside:
    objective: {objective: cpo-s, init: sft, loser_target: mirror-winner, winner: flipped,
                teacher: sft, teacher_guidance: 2, confidence: ignored, weighting: constant,
                learning_rate: 0.001, milestones: [1, 2]}
    strength: omega
    values: [0, 2.5]
    sampled: [alone]
  cpo:
    objective: {objective: cpo, winner: labelled, teacher: sft, confidence: ignored,
                weighting: constant, learning_rate: 0.001, milestones: [2]}
    strength: beta
    values: [100]
    sampled: [alone]
  dpo:
    objective: {objective: dpo, learning_rate: 0.001}
    strength: beta
    values: [30, 100]
    sampled: [alone, guided]
volumes: [0.5]
"""
ROOTS = ("colour", "edges", "light")
CAPTIONS = ["a pond", "a hill", "a pond", "NA", "a hill", "a tree", "a tree", "NA"]


@pytest.fixture
def study():
    return StudyParams.model_validate(yaml.safe_load(STUDY))


@pytest.fixture
def chosen(study):
    return {one: next(iter(design.trainings(study, one))) for one in design.entrants(study)}


@pytest.fixture
def experiments(study, chosen):
    steps = {"sft.training.steps": 300, "cpo.training.steps": 4}
    return [*design.first_runs(study), *design.later_runs(study, chosen, steps)]


@pytest.fixture
def found():
    """A function that returns what an experiment left, drawn by its name."""
    return _found


def _found(experiment, judges=("measured-1", "starter-features-1")):
    source = np.random.default_rng(list(experiment.name.encode()))
    trained = list(experiment.changes["cpo.objectives"].items())
    painters = ["base", "theta1", "theta1+pos"]
    for name, settings in trained:
        painters += [name, *(f"{name}@{steps}" for steps in settings.get("milestones", ()))]
    chances = dict(zip(painters, source.uniform(0.1, 0.7, len(painters)), strict=True))
    chances |= {"base": 0.9, "theta1": 0.8}

    def pictures(chance):
        return [
            [f"{root}/{n}" for root in ROOTS for n in range(3) if source.uniform() < chance]
            for _ in CAPTIONS
        ]

    steps = [1.0, 2.0, 3.0, 4.0]
    return Found(
        metrics={
            name: {
                "negatives": round(9 * chance, 3),
                "fid": round(10 + 20 * source.uniform(), 3),
                "kid": round(source.uniform(), 4),
                "vendi": round(10 + source.uniform(), 3),
            }
            for name, chance in chances.items()
        },
        captions=CAPTIONS,
        criteria=[f"{root}/{n}" for root in ROOTS for n in range(3)],
        negatives={
            judge: {name: pictures(chance) for name, chance in chances.items()}
            for judge in judges
        },
        trained={
            name: {
                "drift": round(source.uniform(), 3),
                "curve": {
                    "step": steps,
                    "gradient_norm": source.uniform(1, 3, 4).round(3).tolist(),
                    "drift": source.uniform(0, 1, 4).round(3).tolist(),
                },
            }
            for name, _ in trained
        },
        clean=[True, False, True, True, False, True],
        features={name: source.normal(size=(len(CAPTIONS), 3)) for name in painters},
        real=source.normal(size=(6, 3)),
    )
