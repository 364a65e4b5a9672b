"""A small study with results of every kind of experiment, without an experiment."""

import numpy as np
import pytest
import yaml

from atelier.config.study import StudyParams

STUDY = """
profile: toy
seeds: [0, 1]
tuning_seed: 7
tuning_prompts: 2
reference: theta1
proposed: cpo-s
settings: {generate.steps: 3, generate.prompts: 3}
methods:
  cpo-s:
    - &cpos {objective: cpo-s, loser_target: mirror-winner, winner: labelled, teacher: sft,
             confidence: ignored, omega: 5, weighting: constant, learning_rate: 0.001}
    - {<<: *cpos, omega: 10}
  cpo:
    - &cpo {objective: cpo, winner: labelled, teacher: sft, confidence: ignored, beta: 500,
            weighting: constant, learning_rate: 0.001}
    - {<<: *cpo, beta: 100}
  dpo:
    - {objective: dpo, beta: 500, learning_rate: 0.001}
    - {objective: dpo, beta: 100, learning_rate: 0.001}
guided: {guidance: 2.0, methods: [cpo-s, dpo], caption_dropout: 0.2,
         npo: {objective: npo, beta: 500, learning_rate: 0.001, w: 0.0, beside: [base, cpo-s]}}
sweep: {field: omega, values: [2, 5, 10]}
variants: {flipped: {winner: flipped}}
steps: {values: [2], methods: [cpo-s, cpo]}
volumes: [0.5]
"""
PAINTERS = {
    "tuning": ["cpo-s-1", "cpo-s-2", "cpo-1", "cpo-2", "dpo-1", "dpo-2"],
    "methods": ["theta1+pos", "cpo-s", "cpo", "dpo"],
    "guided": ["cpo-s", "dpo", "base+npo", "cpo-s+npo"],
    "guided-dropout": ["cpo-s", "dpo", "base+npo", "cpo-s+npo"],
    "steps2": ["cpo-s", "cpo"],
    "sweep": ["omega-2", "omega-5", "omega-10"],
    "variants": ["flipped"],
    "volume50": ["cpo-s"],
}
ROOTS = ("colour", "edges", "light")


@pytest.fixture
def study():
    return StudyParams.model_validate(yaml.safe_load(STUDY))


@pytest.fixture
def found():
    """A function that returns what an experiment left, drawn by its kind and seed."""
    return _found


def _found(kind, seed, judges=("measured-1", "starter-features-1")):
    source = np.random.default_rng([list(PAINTERS).index(kind), seed])
    painters = ["base", "theta1", *PAINTERS[kind]]
    chances = dict(zip(painters, source.uniform(0.1, 0.9, len(painters)), strict=True))
    chances |= {"base": 0.9, "theta1": 0.6, "cpo-s": 0.2 + source.uniform(0, 0.2)}

    def pictures(chance):
        return [
            [f"{root}/{n}" for root in ROOTS for n in range(3) if source.uniform() < chance]
            for _ in range(3)
        ]

    return {
        "metrics": {
            name: {
                "negatives": round(9 * chance, 3),
                "fid": round(10 + 20 * source.uniform(), 3),
                "kid": round(source.uniform(), 4),
                **({} if name == "dpo" else {"vendi": round(10 + source.uniform(), 3)}),
            }
            for name, chance in chances.items()
        },
        "captions": ["a pond", "a hill", "a pond"],
        "criteria": [f"{root}/{n}" for root in ROOTS for n in range(3)],
        "negatives": {
            judge: {name: pictures(chance) for name, chance in chances.items()}
            for judge in judges
        },
        "trained": {
            name: {
                "drift": round(source.uniform(), 4),
                "curve": {
                    "step": [1.0, 4.0],
                    "gradient_norm": [round(float(n), 4) for n in source.uniform(0, 3, 2)],
                    "drift": [0.1, 0.25],
                },
            }
            for name in sorted({n.removesuffix("+npo") for n in PAINTERS[kind]})
            if name not in {"base", "theta1+pos"}
        },
    }
