"""Pace of a training on a device: seconds of an image, measured on it or computed.

What ``benchmarks.gpu_step`` measured counts where family, size of pictures, settings and passes
are those of the training. A training that is like none of its cases is computed: from the
FLOPs of its passes at the rate that was measured on the same device with the same base. Without
figures of the base it is an H100 that reaches a usual share of its data sheet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from atelier.config.model import ModelParams
from atelier.config.training import Training
from atelier.models.costs.measured_steps import Measured, Step

H100 = 989e12 * 0.45  # FLOP/s: what its data sheet says of bfloat16, and a usual share of it


@dataclass(frozen=True)
class Trained:
    """One training of a stage.

    Attributes:
        kind: Of the objective; ``sft`` for SFT.
        policy: Passes of an image in a step, with gradient.
        frozen: Passes without.
        flops: Of all of them.
    """

    kind: str
    policy: float
    frozen: float
    flops: float


@dataclass(frozen=True)
class Pace:
    """What an image takes in a step, in all trainings of a stage together.

    Attributes:
        device: On which.
        seconds: Of it.
        how: How they are known.
        measured: The cases that were measured, one for each training that is like one.
    """

    device: str
    seconds: float
    how: str
    measured: tuple[Step, ...] = ()


def of(
    trained: Sequence[Trained],
    model: ModelParams,
    training: Training,
    found: Measured | None,
) -> Pace:
    """Return the pace of a stage's trainings."""
    cases = [
        None
        if found is None
        else found.step(model, training, one.kind, policy=one.policy, frozen=one.frozen)
        for one in trained
    ]
    rest = [one.flops for one, case in zip(trained, cases, strict=True) if case is None]
    rate = None if found is None else _rate(found, model.family)
    if found is None or (rest and rate is None):
        flops = sum(one.flops for one in trained)
        share = f"at {H100 / 1e12:.0f} TFLOP/s (45% of the data sheet's)"
        return Pace("H100", flops / H100, f"{_computed(flops, len(trained))}, {share}")
    measured = tuple(case for case in cases if case is not None)
    seconds = sum(case.seconds_per_image or 0.0 for case in measured)
    parts = list(_told(measured, found.device))
    if rest and rate is not None:
        seconds += sum(rest) / rate
        where = "there" if measured else f"measured on {found.device}"
        parts.append(
            f"{_computed(sum(rest), len(rest))}, at the {rate / 1e12:.3g} TFLOP/s {where}"
        )
    return Pace(found.device, seconds, "; ".join(parts), measured)


def _told(measured: Sequence[Step], device: str) -> Iterator[str]:
    if not measured:
        return
    each = ", ".join(
        f"{one.objective} {one.seconds_per_image:.3g} s an image ({one.batch_images} in a step)"
        for one in measured
    )
    yield f"measured on {device}: {each}"


def _computed(flops: float, trainings: int) -> str:
    """How many FLOPs an image needs, in words."""
    several = f" of {trainings} objectives" if trainings > 1 else ""
    return f"computed: {float(f'{flops / 1e12:.3g}'):,g} TFLOP an image{several}"


def _rate(found: Measured, family: str) -> float | None:
    """FLOP/s of a family's first case that was measured."""
    rates = (one.tflops for one in found.steps if one.family == family)
    first = next((rate for rate in rates if rate is not None), None)
    return None if first is None else first * 1e12
