"""What every training stage repeats: fit under a bar, keep the curve, put the weights back."""

import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from atelier.errors import DivergedError
from atelier.models import Denoiser
from atelier.params import Training
from atelier.training import drift, loop
from atelier.training.ranks import Ranks
from tasks import machine, progress
from tasks.curve import Curve
from tasks.tracking import StageRun


def teach(
    title: str,
    painter: Denoiser,
    trained: Mapping[str, nn.Parameter],
    step: loop.Step,
    *,
    learning_rate: float,
    params: Training,
    work: Path,
    tracked: StageRun,
    ranks: Ranks,
    curve_name: str = "",
) -> Curve:
    """Train, or take the rest of an interrupted way; the painter then has what was learned.

    Args:
        title: Of the bar; one word or two.
        painter: In the state that learns.
        trained: Its weights that learn, by name.
        step: The objective.
        learning_rate: At its highest.
        params: How.
        work: Where checkpoints and curve lie meanwhile.
        tracked: The stage's run.
        ranks: The processes that train together.
        curve_name: Of the curves in MLflow, before a slash.

    Returns:
        The whole curve, on the first process.

    Raises:
        DivergedError: The loss is not finite or exploded; or the run drifts, where
            ``drift_stop`` says that this stops it.
    """
    with progress.bar(title, params.steps, "images", each=params.batch_images) as bar:
        curve = Curve(work, curve_name, bar, tracked)
        pace = _Pace(params.batch_images)
        watch = _Watch(title, curve, params.drift_stop)

        def report(done: int, values: Mapping[str, float]) -> None:
            if ranks.first:
                curve.report(done, values, pace.values(done) if values else {})
            watch.report(done, values)

        weights = loop.fit(
            trained,
            step,
            learning_rate=learning_rate,
            params=params,
            folder=work,
            report=report,
            ranks=ranks,
        )
    for name, parameter in trained.items():
        parameter.data.copy_(weights[name])
    return curve


class _Watch:
    """Says once when a run drifts instead of learning, or stops it."""

    def __init__(self, title: str, curve: Curve, stops: bool) -> None:
        self._title, self._curve, self._stops = title, curve, stops
        self._alarm: drift.Alarm | None = None
        self._rang = False

    def report(self, done: int, values: Mapping[str, float]) -> None:
        """Look at the monitor's values, if these are such.

        Raises:
            DivergedError: It drifts, and that stops it.
        """
        if "aim_error" not in values:
            return
        if self._alarm is None:  # a run that goes on knows what it reported before
            self._alarm = drift.Alarm()
            for row in self._curve.rows(before=done):
                self._alarm.drifting(row)
        if not self._alarm.drifting(values) or self._rang:
            return
        self._rang = True
        said = (
            f"{self._title} drifts at step {done}: it is farther from its target than the "
            "untouched base. Lower learning_rate or omega, or raise beta"
        )
        if self._stops:
            raise DivergedError(f"{said}. drift_stop ended it; the last checkpoints are kept")
        warnings.warn(said, stacklevel=2)


class _Pace:
    """How fast a training goes and what it holds: told, never written into a result."""

    def __init__(self, batch_images: int) -> None:
        self._batch = batch_images
        self._last: tuple[int, float] | None = None

    def values(self, done: int) -> dict[str, float]:
        now = time.monotonic()
        before, self._last = self._last, (done, now)
        told = {"memory_gb": machine.used() / 1e9}
        if before is not None:
            images = (done - before[0]) * self._batch
            told["images_per_second"] = images / max(now - before[1], 1e-6)
        return told
