"""The recipe that is usual for training on preferences, as a plain loop, to compare with.

Three copies of the network lie in memory: the policy, which learns, a frozen reference, and a
frozen teacher. The codec and the text encoders stay beside them, and encode pictures and
prompts anew in every step. The mathematics of the step is CPO-S's own, so that both learn the
same; only where weights lie and what is computed twice differs.

``python -m benchmarks.recipe --family sdxl --who recipe`` trains a few steps in a process of
its own and prints what memory it took: ``benchmarks.training`` compares.
"""

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from atelier.models import adapters
from atelier.models.denoiser import Denoiser
from atelier.models.sampling import to_pixels
from atelier.objectives.cpo_s import cpo_s
from atelier.objectives.objective import Setup
from atelier.reporting import silent
from atelier.training import loop
from atelier.training.corpus import Corpus
from benchmarks import toys
from benchmarks.lines import Size
from benchmarks.toys import Toy

_RATE = 5e-5
_RANK = 16
REPORT = 5  # steps from one report to the next: oftener than profiles, so that some are seen
_STEPS = 3
WHO = ("ours", "recipe")


class Recipe:
    """Policy, reference, teacher, codec and encoders, all in memory."""

    def __init__(self, built: Denoiser, toy: Toy) -> None:
        self._batch = toy.batch
        self._encoders = built
        self._policy, self._reference, self._teacher = (_copy(built) for _ in range(3))
        for painter in (self._policy, self._teacher):
            adapters.add(painter.network, "lora", toys.lora(_RANK), seed=0)
        self._policy.network.set_adapter("lora")
        self._teacher.network.requires_grad_(False)
        self._trained = list(adapters.weights(self._policy.network, "lora").values())
        for parameter in self._trained:
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(self._trained, lr=_RATE, weight_decay=0.0)
        self._pictures = toys.pictures(toy.pixels)
        self._prompts = {role: toys.prompts(role) for role in toys.ROLES}
        self._source = torch.Generator().manual_seed(0)

    def step(self) -> float:
        """Take one optimizer step; return the loss."""
        rows = torch.randint(toys.IMAGES, (self._batch,), generator=self._source).tolist()
        with torch.no_grad():
            pixels = to_pixels(np.stack([self._pictures[row] for row in rows]))
            clean = self._encoders.encode_images(pixels)
            conditions = {
                role: self._encoders.encode_texts([prompts[row] for row in rows])
                for role, prompts in self._prompts.items()
            }
            noise = torch.randn(clean.shape, generator=self._source)
            time = torch.rand(len(rows), generator=self._source)
            noisy = self._policy.process.add_noise(clean, noise, time)
            reference = self._reference.predict(noisy, time, conditions["caption"])
            win, lose = (
                self._teacher.predict(noisy, time, conditions[role])
                for role in ("winner", "loser")
            )
        predicted = self._policy.predict(noisy, time, conditions["caption"])
        loss = cpo_s(
            predicted, reference, win, lose,
            kind="mirror-winner", omega=6.0, weights=torch.ones(len(rows)),
            has_loser=torch.ones(len(rows), dtype=torch.bool),
        ).mean()  # fmt: skip
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.item()


def _copy(built: Denoiser) -> Denoiser:
    """The same process around weights of its own."""
    copied = copy.copy(built)
    copied.network = copy.deepcopy(built.network)
    return copied


def ours(
    built: Denoiser, toy: Toy, folder: Path, count: int, report: Callable[..., None]
) -> None:
    """Train as the stage does: encode once, drop the encoders, then take the steps."""
    corpus = toys.corpus(built, toy, folder)
    built.release_encoders()
    step, training, trained = prepared(built, corpus, toy, count)
    with adapters.learning(built.network, "theta"):
        loop.fit(
            trained, step, learning_rate=_RATE, params=training, folder=folder / "work",
            report=report,
        )  # fmt: skip


def prepared(
    built: Denoiser, corpus: Corpus, toy: Toy, count: int
) -> tuple[loop.Step, Any, dict[str, nn.Parameter]]:
    """Return CPO-S's step, its settings, and θ's weights."""
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(built.network, name, toys.lora(_RANK), seed=seed)
    training = toys.training(toy, count, REPORT)
    step = toys.OBJECTIVE.step(Setup(built, corpus, training, "theta1", "theta", 0.0))
    return step, training, adapters.weights(built.network, "theta")


def main() -> None:
    """Train a few steps and print bytes: of the start, of the most, and of the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--family", choices=["flux", "sdxl"], required=True)
    parser.add_argument("--who", choices=WHO, required=True)
    parser.add_argument("--size", choices=["full", "tiny"], default="full")
    asked = parser.parse_args()
    size: Size = asked.size
    toy = toys.TOYS[size][asked.family]
    _warm_libraries()
    _forget_peak()
    start = _held("VmRSS")
    built = toys.painter(toy)
    weights = sum(p.numel() * p.element_size() for p in built.network.parameters())
    if asked.who == "recipe":
        recipe = Recipe(built, toy)
        for _ in range(_STEPS):
            recipe.step()
    else:
        with tempfile.TemporaryDirectory() as folder:
            ours(built, toy, Path(folder), _STEPS, silent)
    found = {"start": start, "most": _held("VmHWM"), "weights": weights}
    sys.stdout.write(json.dumps(found) + "\n")


def _warm_libraries() -> None:
    """What libraries allocate once belongs to neither side: a tiny step of the same kind."""
    toy = toys.TOYS["tiny"]["sdxl"]
    Recipe(toys.painter(toy), toy).step()


def _forget_peak() -> None:
    """Begin the record of the most resident memory anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _held(what: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
