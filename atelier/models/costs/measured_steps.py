"""Measured training steps: what ``benchmarks.gpu_step`` found on one device, for estimates."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from atelier import reading
from atelier.config.fields import Count, NonNegative, Params, Positive, Whole
from atelier.config.messages import explain
from atelier.config.model import ModelParams
from atelier.config.training import Training
from atelier.errors import ArtifactError


class Step(Params):
    """One case: an objective on a family, with what it was set to.

    ``seconds_per_image`` and what follows from it are None where it failed.
    """

    family: str
    objective: str
    policy_passes: Positive
    frozen_passes: NonNegative
    flag: str  # the one setting in which it departs from the family's plain case; "" for that
    batch_images: Count
    images_at_once: Count | None
    pixels: Count
    rank: Count
    precision: Literal["fp32", "bf16", "fp16"]
    optimizer: str
    gradient_checkpointing: bool
    compile: bool
    attention: str | None
    quantise: str | None
    steps: Whole = 0  # that were timed
    seconds_per_image: Positive | None = None
    peak_memory_gb: Positive | None = None
    tflops: Positive | None = None  # a second: all that is computed, also what is made again
    mfu: Positive | None = None  # a share: what is needed, of the data sheet's peak
    matrix_share: Positive | None = None  # all that is computed, of ``matrix_tflops``
    failure: str | None = None

    def kind(self) -> tuple[object, ...]:
        """Return what decides its time, the batch left out."""
        return (
            self.objective,
            self.policy_passes,
            self.frozen_passes,
            self.family,
            self.pixels,
            self.attention,
            self.quantise,
            self.precision,
            self.optimizer,
            self.gradient_checkpointing,
            self.compile,
        )

    def at_once(self) -> int:
        """Return how many images go through the network together."""
        return self.images_at_once or self.batch_images


class Measured(Params):
    """One run on one device."""

    device: str
    torch: str
    size: Literal["full", "toy"]
    matrix_tflops: Positive | None  # a second, of matrix products in the network's precision
    steps: tuple[Step, ...]

    def step(
        self,
        model: ModelParams,
        training: Training,
        objective: str,
        *,
        policy: float,
        frozen: float,
    ) -> Step | None:
        """Return the case that a training is like; None if none was measured.

        Base, size of pictures, passes and the settings that change a step's time are the same.
        The batch may be another: the case with the nearest one is returned.

        Args:
            model: The base.
            training: How it is trained.
            objective: Its kind.
            policy: Passes of an image in a step, with gradient.
            frozen: Passes without.
        """
        batch = training.images_at_once or training.batch_images
        asked = (objective, policy, frozen, *_settings(model, training))
        alike = [
            one
            for one in self.steps
            if one.seconds_per_image is not None and one.kind() == asked
        ]
        return min(alike, key=lambda one: abs(one.at_once() - batch), default=None)


def read(file: Path) -> Measured:
    """Read what a run wrote.

    Raises:
        ArtifactError: The file is absent, damaged, or of toys.
    """
    try:
        found = Measured.model_validate(reading.json_values(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ArtifactError(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, reading.UnreadableError) as error:
        raise ArtifactError(f"{file}: {error}") from None
    except ValidationError as error:
        raise ArtifactError(
            f"{file} holds no figures of `python -m benchmarks.gpu_step`:\n{explain(error)}"
        ) from None
    if found.size != "full":
        raise ArtifactError(
            f"{file} holds figures of toys (--size toy), from which nothing can be estimated; "
            "run `python -m benchmarks.gpu_step` on the device"
        )
    return found


def _settings(model: ModelParams, training: Training) -> tuple[object, ...]:
    return (
        model.family,
        model.pixels,
        model.attention,
        model.quantise,
        training.precision,
        training.optimizer,
        training.gradient_checkpointing,
        training.compile,
    )
