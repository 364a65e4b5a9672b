"""Twenty steps of each objective on toy models in float64, against curves that were kept.

`make golden` writes the curves again; the difference is then read in review.

All of it is float64, on any processor (`double`): weights, encoders, conditions, noise, times
and what the networks make of them, errors, the optimizer.

The tolerance. What is read and drawn is the same to 1e-15, and a pass through these networks
adds some hundred roundings of 1e-16 each, so two processors start about 1e-14 apart. Twenty
steps carry a small change on up to 60 times as large (measured: noise changed by 1e-10), which
makes 1e-12; so far apart were the farthest values under other kernels. 1e-10 is a hundred times
that, and hundreds of times less than what one input in float32 would make of its 6e-8.
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
from atelier.objectives.nft import NFT
from atelier.objectives.npo import NPO
from atelier.objectives.objective import Setup
from atelier.objectives.sdpo import SDPO
from atelier.training import loop
from atelier.training.corpus import Corpus, Pairs
from tests.atelier.conftest import LATER, objective_params

GOLDEN = Path(__file__).parents[2] / "golden"
SHOWN = ("loss", "drift", "accuracy", "win_error", "gradient_norm")
RELATIVE = 1e-10


def stable(loser_target, omega, winner="labelled", weighting="constant"):
    return objective_params(
        "cpo-s",
        loser_target=loser_target,
        winner=winner,
        omega=omega,
        weighting=weighting,
        learning_rate=0.01,
    )


def with_options(**options):
    usual = {"loser_target": "mirror-winner", "omega": 2.0, "learning_rate": 0.01}
    return objective_params("cpo-s", **usual | options)


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
    "cpo-s-guided": with_options(teacher_guidance=2.0),
    "cpo-s-in-dpo-frame": with_options(dpo_beta=20.0, k=0.5),
    "cpo-s-from-sft": with_options(
        init="sft", reference="sft", loser_target="mirror-reference", omega=0.5
    ),
    "nft": NFT(
        objective="nft",
        old="base",
        beta=0.5,
        clip=2,
        anchor=0.1,
        reference="sft",
        learning_rate=0.01,
    ),
    "dpo-from-sft": DPO(
        objective="dpo", beta=50, learning_rate=0.01, init="sft", reference="sft"
    ),
}


# Under other kernels, too: CPO's curve is the one that amplifies most.
REPEATED = ("cpo", "cpo-s-mirror-winner", "dpo")


def curve(painter, lora, training, objective, folder):
    prompts = ["", "a sea", "a sea, calm edges", "a sea, harsh edges"]
    conditions = painter.encode_texts(prompts)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(
        6, *painter.latent_shape(32), generator=generator, dtype=torch.float64
    )
    every = torch.ones(6, 1, dtype=torch.long)
    corpus = Corpus(
        latents, conditions, {"caption": every, "winner": 2 * every, "loser": 3 * every}, 0
    )
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(painter.network, name, lora, seed=seed)
    taught = adapters.weights(painter.network, "theta1")
    for parameter in taught.values():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    if objective.init == "sft":
        adapters.copy(painter.network, "theta1", "theta")
    training = training.model_copy(update={"steps": 20, "report_steps": 1, "ema_decay": None})
    lines = []

    def report(step, values):
        lines.append(" ".join([str(step), *(f"{values[name]:.12e}" for name in SHOWN)]))

    pairs = None
    if objective.needs_pairs:
        training = training.model_copy(update={"batch_images": 2})
        win, lose = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 0, 1])
        pairs = Pairs(win, lose, torch.ones(4, dtype=torch.long), torch.ones(4))
    negatives = torch.tensor([0, 3, 1, 5, 2, 2])
    step = objective.step(
        Setup(painter, corpus, training, "theta1", "theta", 0, pairs, negatives=negatives)
    )
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


# Two families with every objective; of the others those whose curves amplify most.
CURVES = [(family, name) for family in ("flux", "sdxl-epsilon") for name in OBJECTIVES]
CURVES += [(family, name) for family in LATER for name in REPEATED]
CURVES += [("qwen_image", "sdpo")]  # which asks the gradient of weights that nothing depends on


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param(family, name, marks=[pytest.mark.numerical] if name in again else [])
        for family, name in CURVES
        for again in [REPEATED[1:2] if family in LATER else REPEATED]
    ],
)
def test_training_follows_the_golden_curve(
    name, family, float64, painter, lora, training, tmp_path
):
    found = curve(painter, lora, training, OBJECTIVES[name], tmp_path)
    kept = GOLDEN / (f"{name}.txt" if family == "flux" else f"{family}-{name}.txt")
    if os.environ.get("ATELIER_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        kept.write_text("\n".join([f"# step {' '.join(SHOWN)}", *found]) + "\n")

    expected = kept.read_text().splitlines()[1:]

    assert numbers(found) == pytest.approx(numbers(expected), rel=RELATIVE, abs=1e-12)


def numbers(lines):
    """All but the first accuracy: policy and reference agree there, and rounding would say."""
    words = [word for line in lines for word in line.split()]
    del words[1 + SHOWN.index("accuracy")]
    return [float(word) for word in words]
