"""The training step, against its bare passes and against the usual recipe."""

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atelier.models import adapters
from atelier.models.denoiser import Denoiser
from atelier.objectives.objective import Setup
from atelier.training import loop
from atelier.training.corpus import Corpus
from atelier.training.target_cache import TargetCache
from benchmarks import recipe, toys
from benchmarks.lines import Goal, Line, Size, Turns, by_turns, figure_ratio, taking
from benchmarks.recipe import Recipe

SECTION = "training"
_NAMES = {"sdxl": "SDXL", "flux": "FLUX"}
_ROUNDS: Mapping[Size, int] = {"full": 30, "tiny": 10}  # a multiple of report_steps
_WARM_UP = 5
_REPORT_IN_PROFILES = 10
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Compared:
    """Seconds of two pieces of work, and the first over the second."""

    figure: float
    reference: float
    ratio: float


def lines(size: Size) -> Iterator[Line]:
    """Measure both families."""
    for family in ("sdxl", "flux"):
        yield from _step(family, size)
        if family == "sdxl" or size == "full":  # two processes that import everything
            yield _memory(family, size)


def _step(family: str, size: Size) -> Iterator[Line]:
    toy = toys.TOYS[size][family]
    shaped = f"{_NAMES[family]}-shaped"
    built = toys.painter(toy)
    usual = Recipe(toys.painter(toy), toy)
    with tempfile.TemporaryDirectory() as folder:
        corpus = toys.corpus(built, toy, Path(folder))
        built.release_encoders()
        count = _WARM_UP + _ROUNDS[size] + 1
        step, training, trained = recipe.prepared(built, corpus, toy, count)
        bare = _bare(built, step)
        place = Path(folder)
        passes, steps = _by_turns(built, step, training, trained, bare, usual, place / "a")
        fused = training.model_copy(update={"optimizer": "adamw-fused"})
        one_kernel, _ = _by_turns(built, step, fused, trained, bare, None, place / "b")
        kept = _kept(built, corpus, training, place / "targets", _ROUNDS[size] // 2)
    yield Line(
        SECTION,
        f"CPO-S step, {shaped}: cache, clipping, averaging and reports inside",
        passes.figure, "s",
        "θ1 twice in one batch, θ forward and backward, by torch alone", passes.reference,
        passes.ratio, Goal("ratio", "≤", 1.05),
    )  # fmt: skip
    yield Line(
        SECTION,
        f"images a second, {shaped}",
        toy.batch / steps.figure, "images/s",
        "the usual recipe: three networks, codec and encoders in each step",
        toy.batch / steps.reference,
        1 / steps.ratio, Goal("ratio", "≥", 1.5),
    )  # fmt: skip
    yield Line(
        SECTION, f"CPO-S step, {shaped}, with `optimizer: adamw-fused`",
        one_kernel.figure, "s", "the same bare passes", one_kernel.reference,
        one_kernel.ratio, Goal("ratio", "≤", 1.05),
    )  # fmt: skip
    yield Line(
        SECTION, f"loss and gradient, {shaped}, of targets kept by `cpo.keep_targets`",
        kept.figure, "s", "of targets that θ1 computes", kept.reference, kept.ratio, None,
    )  # fmt: skip


def _kept(built: Denoiser, corpus: Corpus, training: Any, folder: Path, rounds: int) -> Turns:
    """The step of an objective whose targets another one asked for before it."""
    setup = Setup(built, corpus, training, "theta1", "theta", 0.0)
    computing = toys.OBJECTIVE.step(setup)
    keeping = toys.OBJECTIVE.step(dataclasses.replace(setup, targets=TargetCache(folder)))

    def learn(step: loop.Step) -> None:
        with adapters.learning(built.network, "theta"):
            loss, _ = step(0, False)
            torch.autograd.backward(loss)

    learn(keeping)
    return by_turns(lambda: learn(keeping), lambda: learn(computing), rounds=rounds)


def _bare(built: Denoiser, step: loop.Step) -> Callable[[], float]:
    """Return what times the passes of a step, as the network alone makes them.

    What the network is called with is listened to in one step.
    """
    network = built.network
    calls: list[tuple[Any, Any]] = []
    hook = network.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    step(0, False)
    hook.remove()
    if len(calls) != 2:
        raise RuntimeError(
            f"a CPO-S step should call the network twice, did {len(calls)} times"
        )
    (teacher_args, teacher_kwargs), (policy_args, policy_kwargs) = calls
    theta = list(adapters.weights(network, "theta").values())

    def timed() -> float:
        with torch.no_grad(), adapters.use(network, "theta1"):
            start = time.perf_counter()
            network(*teacher_args, **teacher_kwargs)
            spent = time.perf_counter() - start
        start = time.perf_counter()
        network(*policy_args, **policy_kwargs)[0].square().mean().backward()
        spent += time.perf_counter() - start
        for parameter in theta:
            parameter.grad = None
        return spent

    return timed


def _by_turns(
    built: Denoiser,
    step: loop.Step,
    training: Any,
    trained: Any,
    bare: Callable[[], float],
    usual: Recipe | None,
    folder: Path,
) -> tuple[Compared, Compared]:
    """After each step of our loop the bare passes, after each second a step of the recipe."""
    ours: list[float] = []
    passes: list[float] = []
    theirs: list[float] = []
    resumed = time.perf_counter()

    def report(done: int, values: Mapping[str, float]) -> None:
        nonlocal resumed
        ours.append(time.perf_counter() - resumed)
        passes.append(bare())
        theirs.append(math.nan if usual is None or done % 2 else taking(usual.step))
        resumed = time.perf_counter()

    with adapters.learning(built.network, "theta"):
        loop.fit(
            trained, step, learning_rate=5e-5, params=training, folder=folder / "work",
            report=report,
        )  # fmt: skip
    kept = slice(_WARM_UP, -1)  # the last step saves, as one of hundreds does
    rows = list(zip(ours[kept], passes[kept], theirs[kept], strict=True))
    reporting = [at for at in range(len(rows)) if (at + _WARM_UP + 1) % recipe.REPORT == 0]
    plain = [row for at, row in enumerate(rows) if at not in reporting]
    telling = [rows[at] for at in reporting]
    return _mixed(plain, telling, 1), _mixed(plain, telling, 2)


def _mixed(
    plain: Sequence[tuple[float, ...]], telling: Sequence[tuple[float, ...]], other: int
) -> Compared:
    """Seconds of a step on average, where one in so many reports as in the profiles."""

    def median(value: Callable[[tuple[float, ...]], float], rows: Any) -> float:
        found = [one for one in map(value, rows) if not math.isnan(one)]
        return statistics.median(found) if found else math.nan

    def of(value: Callable[[tuple[float, ...]], float]) -> float:
        usual, reports = median(value, plain), median(value, telling)
        return usual + (reports - usual) / _REPORT_IN_PROFILES

    return Compared(
        of(lambda row: row[0]), of(lambda row: row[other]), of(lambda row: row[0] / row[other])
    )


def _memory(family: str, size: Size) -> Line:
    """The most resident memory of each side in a process of its own, over that at its start."""
    found = {who: _child(family, who, size) for who in recipe.WHO}
    taken = {who: (one["most"] - one["start"]) / 1e6 for who, one in found.items()}
    return Line(
        SECTION,
        f"peak memory, {_NAMES[family]}-shaped, encoding included",
        taken["ours"], "MB",
        "the usual recipe", taken["recipe"],
        figure_ratio(taken["ours"], taken["recipe"]), Goal("ratio", "≤", 0.6),
        note=f"the network's weights are {found['ours']['weights'] / 1e6:.0f} MB",
    )  # fmt: skip


def _child(family: str, who: str, size: Size) -> dict[str, int]:
    words = ["-m", "benchmarks.recipe", "--family", family, "--who", who, "--size", size]
    said = subprocess.run(
        [sys.executable, *words], cwd=_ROOT, capture_output=True, text=True, check=True,
        # Blocks that are given back should leave the process at once, on both sides.
        env={**os.environ, "PYTHONPATH": str(_ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"},
    ).stdout  # fmt: skip
    found: dict[str, int] = json.loads(said.splitlines()[-1])
    return found
