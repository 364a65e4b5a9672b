"""The training step, against its bare passes and against the usual recipe."""

import contextlib
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
from unittest import mock

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
_BACKWARD = torch.autograd.backward


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
        place = Path(folder)
        rows = _steps(built, step, training, trained, usual, place / "a")
        fused = training.model_copy(update={"optimizer": "adamw-fused"})
        one_kernel = _over_passes(_steps(built, step, fused, trained, None, place / "b"))
        kept = _kept(built, corpus, training, place / "targets", _ROUNDS[size] // 2)
    passes, steps = _over_passes(rows), _over_recipe(rows)
    again = Turns([row.passes for row in rows], [row.again for row in rows])
    yield Line(
        SECTION,
        f"CPO-S step, {shaped}: cache, clipping, averaging and reports inside",
        passes.figure, "s",
        "its passes: θ1 twice in one batch, θ forward and backward", passes.reference,
        passes.ratio, Goal("ratio", "≤", 1.05),
    )  # fmt: skip
    yield Line(
        SECTION, f"these passes, {shaped}", again.figure, "s",
        "each made once more right after it, by torch alone", again.reference,
        again.ratio, None,
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
        one_kernel.figure, "s", "its passes", one_kernel.reference,
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


class _Passes:
    """Times a step's passes, and each of them made once more by torch alone, right after it.

    So what else the machine does falls on both. The passes are θ1's call of the network, and
    θ's with its way back; the monitor's call of the base, between the two, is the step's own.

    Attributes:
        passes: Seconds of the passes of this step, in the step.
        again: Seconds of the same, made once more.
        since: When the step began, later by what was made once more.
    """

    def __init__(self, built: Denoiser) -> None:
        self._network = built.network
        self._theta = list(adapters.weights(built.network, "theta").values())
        self._policy: tuple[Any, Any] | None = None
        self._repeating = False
        self._called = 0.0  # when the network was called last
        self.begin()

    def begin(self) -> None:
        """Begin a step."""
        self.passes = self.again = 0.0
        self._calls = 0
        self.since = time.perf_counter()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, calls of the network and ways back are timed and made once more."""
        hooks = [
            self._network.register_forward_pre_hook(self._before),
            self._network.register_forward_hook(self._after, with_kwargs=True),
        ]
        try:
            with mock.patch.object(torch.autograd, "backward", self._backward):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _before(self, *_: Any) -> None:
        self._called = time.perf_counter()

    def _after(self, network: Any, args: Any, kwargs: Any, answer: Any) -> None:
        del answer
        if self._repeating:
            return
        spent = time.perf_counter() - self._called
        self._calls += 1
        if torch.is_grad_enabled():
            self._policy = args, kwargs
            self.passes += spent
        elif self._calls == 1:
            self.passes += spent
            self._repeat(lambda: network(*args, **kwargs))

    def _backward(self, *tensors: Any, **options: Any) -> None:
        spent = taking(lambda: _BACKWARD(*tensors, **options))
        if self._policy is None:
            return  # the recipe's
        self.passes += spent
        (args, kwargs), self._policy = self._policy, None
        gradients = [weight.grad for weight in self._theta]
        for weight in self._theta:
            weight.grad = None
        self._repeat(lambda: _BACKWARD(self._network(*args, **kwargs)[0].square().mean()))
        for weight, gradient in zip(self._theta, gradients, strict=True):
            weight.grad = gradient

    def _repeat(self, passes: Callable[[], object]) -> None:
        self._repeating = True
        spent = taking(passes)
        self._repeating = False
        self.again += spent
        self.since += spent


@dataclass(frozen=True)
class _Row:
    """Seconds of a step.

    Attributes:
        passes: Of its passes.
        again: Of the same passes, made once more.
        own: Of all else.
        recipe: Of a step of the recipe after it; NaN where none was taken.
        reports: Whether it reported, and so asked the base, too.
    """

    passes: float
    again: float
    own: float
    recipe: float
    reports: bool


def _steps(
    built: Denoiser,
    step: loop.Step,
    training: Any,
    trained: Any,
    usual: Recipe | None,
    folder: Path,
) -> list[_Row]:
    """Take our loop's steps, and after each second one a step of the recipe."""
    timed = _Passes(built)
    rows: list[_Row] = []

    def report(done: int, values: Mapping[str, float]) -> None:
        own = time.perf_counter() - timed.since - timed.passes
        theirs = math.nan if usual is None or done % 2 else taking(usual.step)
        rows.append(_Row(timed.passes, timed.again, own, theirs, bool(values)))
        timed.begin()

    with adapters.learning(built.network, "theta"), timed.listening():
        loop.fit(
            trained, step, learning_rate=5e-5, params=training, folder=folder / "work",
            report=report,
        )  # fmt: skip
    return rows[_WARM_UP:-1]  # the last step saves, as one of hundreds does


def _over_passes(rows: Sequence[_Row]) -> Compared:
    """A step over its passes, timed in it, so that other work on the machine cancels."""
    passes = statistics.median(row.passes for row in rows)
    own = _mixed(lambda row: row.own, rows)
    return Compared(passes + own, passes, 1 + _mixed(lambda row: row.own / row.passes, rows))


def _over_recipe(rows: Sequence[_Row]) -> Compared:
    taken = [row for row in rows if not math.isnan(row.recipe)]
    return Compared(
        _mixed(lambda row: row.passes + row.own, taken),
        statistics.median(row.recipe for row in taken),
        _mixed(lambda row: (row.passes + row.own) / row.recipe, taken),
    )


def _mixed(value: Callable[[_Row], float], rows: Sequence[_Row]) -> float:
    """The median of a step's value, where one in so many reports as in the profiles."""
    plain = statistics.median(value(row) for row in rows if not row.reports)
    reporting = statistics.median(value(row) for row in rows if row.reports)
    return plain + (reporting - plain) / _REPORT_IN_PROFILES


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
