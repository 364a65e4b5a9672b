"""Trains a toy again and again, each time killed somewhere and started anew; run as a script.

Processes are forked from this one, which has imported everything: a start costs nothing.
Scaler, moving average and several passes a step are on. As a script it takes a family, how
often, and a folder; it prints, a line a time, where it killed and whether the final weights
were those of an undisturbed run.
"""

import os
import random
import signal
import sys
import warnings
from pathlib import Path

import safetensors.torch
import torch

from atelier import atomic
from atelier.models import adapters
from atelier.objectives.objective import Setup
from atelier.training import loop
from atelier.training.corpus import Corpus
from atelier.training.ranks import ALONE
from tests.atelier.conftest import lora_params, tiny
from tests.atelier.training import two

TRAINING = two.TRAINING.model_copy(
    update={"steps": 12, "precision": "fp16", "checkpoint_steps": 3, "batch_images": 3}
)
PLACES = ("pass", "step", "file")


def corpus_of(painter):
    prompts = ["", "a sea", "a sea, calm edges", "a sea, harsh edges"]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(7, *painter.latent_shape(32), generator=generator)
    every = torch.ones(7, 1, dtype=torch.long)
    rows = {"caption": every, "winner": 2 * every, "loser": 3 * every}
    return Corpus(latents, painter.encode_texts(prompts), rows, empty=0)


def prepared(family):
    """A painter with both adapters, and its corpus."""
    painter = tiny(family)
    corpus = corpus_of(painter)
    lora = lora_params(rank=2, alpha=2, dropout=0.1)
    generator = torch.Generator().manual_seed(0)
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(painter.network, name, lora, seed=seed)
    for parameter in adapters.weights(painter.network, "theta1").values():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return painter, corpus


def train(painter, corpus, folder, place=None, at=0):
    """Train to the end, or be killed at step ``at``: in its second pass, after it, or while
    the checkpoint that follows it is written."""
    step = two.OBJECTIVE.step(Setup(painter, corpus, TRAINING, "theta1", "theta", 0.3))

    def passes(number, measure, part):
        if place == "pass" and number + 1 == at and part.start > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(number, measure, part)

    def report(done, values):
        if place == "step" and done == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if place == "file" and done >= at:
            atomic.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)

    with adapters.learning(painter.network, "theta"):
        weights = loop.fit(
            adapters.weights(painter.network, "theta"),
            passes,
            learning_rate=two.OBJECTIVE.learning_rate,
            params=TRAINING,
            folder=folder,
            report=report,
            ranks=ALONE,
        )
    safetensors.torch.save_file(weights, folder / "weights")


def forked(work, *given):
    """Do the work in a process of its own; return how that ended."""
    child = os.fork()
    if child == 0:
        work(*given)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status


def main(family, times, folder):
    """Print a line for each time; end with an error if one was not as undisturbed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    painter, corpus = prepared(family)
    assert forked(train, painter, corpus, folder) == 0
    undisturbed = (folder / "weights").read_bytes()
    chance = random.Random(f"{family} {times}")
    right = 0
    for number in range(times):
        place, at = chance.choice(PLACES), chance.randint(1, TRAINING.steps)
        work = folder / str(number)
        assert os.WTERMSIG(forked(train, painter, corpus, work, place, at)) == signal.SIGKILL
        assert forked(train, painter, corpus, work) == 0
        same = (work / "weights").read_bytes() == undisturbed
        right += same
        sys.stdout.write(f"{family}: killed at step {at} ({place}): same {same}\n")
    raise SystemExit(0 if right == times else 1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
