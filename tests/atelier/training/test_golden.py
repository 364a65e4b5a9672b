"""Twenty steps of each objective on toy models in float64, against curves that were kept.

`make golden` writes the curves again; the difference is then read in review. Prompts are
encoded in float32, so the curves of another CPU differ by up to 1e-5.
"""

import os
from pathlib import Path

import pytest
import torch

from atelier.config.training import MinSNR
from atelier.models import adapters
from atelier.objectives.ddspo import DDSPO
from atelier.objectives.dpo import DPO
from atelier.objectives.mapo import MaPO
from atelier.objectives.npo import NPO
from atelier.objectives.objective import Setup
from atelier.objectives.sdpo import SDPO
from atelier.training import loop
from atelier.training.corpus import Corpus, Pairs
from tests.atelier.conftest import objective_params

GOLDEN = Path(__file__).parents[2] / "golden"
SHOWN = ("loss", "drift", "accuracy", "win_error", "gradient_norm")


def stable(loser_target, omega, winner="labelled", weighting="constant"):
    return objective_params(
        "cpo-s",
        loser_target=loser_target,
        winner=winner,
        omega=omega,
        weighting=weighting,
        learning_rate=0.01,
    )


OBJECTIVES = {
    "cpo": objective_params("cpo", beta=50, learning_rate=0.01),
    "cpo-s-mirror-winner": stable("mirror-winner", 2.0),
    "cpo-s-mirror-policy": stable("mirror-policy", 0.5),
    "cpo-s-mirror-reference": stable("mirror-reference", 0.5),
    "cpo-s-snr": stable("mirror-winner", 2.0, weighting="snr"),
    "cpo-s-min-snr": stable("mirror-winner", 2.0, weighting=MinSNR(min_snr_gamma=5)),
    "ddspo": DDSPO(
        objective="ddspo", winner="labelled", beta=50, weighting="constant", learning_rate=0.01
    ),
    "dpo": DPO(objective="dpo", beta=50, learning_rate=0.01),
    "npo": NPO(objective="npo", beta=50, learning_rate=0.01, w=0, beside=["base"]),
    "mapo": MaPO(objective="mapo", beta=1, scale=0.5, learning_rate=0.01),
    "sdpo": SDPO(objective="sdpo", beta=50, slack=0.1, learning_rate=0.01),
}


def curve(painter, lora, training, objective, folder):
    prompts = ["", "a sea", "a sea, calm edges", "a sea, harsh edges"]
    conditions = {k: t.double() for k, t in painter.encode_texts(prompts).items()}
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(
        6, *painter.latent_shape(32), generator=generator, dtype=torch.float64
    )
    every = torch.ones(6, 1, dtype=torch.long)
    corpus = Corpus(
        latents, conditions, {"caption": every, "winner": 2 * every, "loser": 3 * every}, 0
    )
    painter.network.double()
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(painter.network, name, lora, seed=seed)
    taught = adapters.weights(painter.network, "theta1")
    for parameter in taught.values():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    painter.network.double()
    training = training.model_copy(update={"steps": 20, "report_steps": 1, "ema_decay": None})
    lines = []

    def report(step, values):
        lines.append(" ".join([str(step), *(f"{values[name]:.9e}" for name in SHOWN)]))

    pairs = None
    if objective.needs_pairs:
        training = training.model_copy(update={"batch_images": 2})
        win, lose = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 0, 1])
        pairs = Pairs(win, lose, torch.ones(4, dtype=torch.long), torch.ones(4))
    step = objective.step(Setup(painter, corpus, training, "theta1", "theta", 0, pairs))
    with adapters.use(painter.network, "theta"):
        loop.fit(
            adapters.weights(painter.network, "theta"),
            step,
            learning_rate=objective.learning_rate,
            params=training,
            folder=folder,
            report=report,
        )
    return lines


@pytest.mark.parametrize("family", ["flux", "sdxl-epsilon"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_follows_the_golden_curve(name, family, painter, lora, training, tmp_path):
    found = curve(painter, lora, training, OBJECTIVES[name], tmp_path)
    kept = GOLDEN / (f"{name}.txt" if family == "flux" else f"{family}-{name}.txt")
    if os.environ.get("ATELIER_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        kept.write_text("\n".join([f"# step {' '.join(SHOWN)}", *found]) + "\n")

    expected = kept.read_text().splitlines()[1:]

    assert numbers(found) == pytest.approx(numbers(expected), rel=1e-4, abs=1e-8)


def numbers(lines):
    return [float(word) for line in lines for word in line.split()]
