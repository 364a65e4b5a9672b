"""``atelier estimate sft|cpo``: memory, time and disk of a training.

Parameter counts follow from configurations, and the size of weights, gradients and optimizer
state from those: they are *computed*. The memory of a pass and the time of a step cannot be
computed well: ``--check`` makes six real steps on some of the pictures, in a temporary folder,
and prints what was *measured*.
"""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from atelier.config.model import ModelParams
from atelier.config.objectives import CPOParams
from atelier.config.profile import Profile
from atelier.config.training import SFTParams
from atelier.criteria import annotations
from atelier.criteria.annotations import Record
from tasks.run import machine, paths, split_parts
from tasks.run.console import console
from tasks.tracking.mlflow_runs import StageRun

Stage = Literal["sft", "cpo"]
_STEPS = 6  # of a check: two reports of three steps, the second of which is timed
_APART = 3
_CORPORA = (10_277, 1_000_000)  # pictures: the paper's corpus, and a hundred of them
_DEVICES = (1, 8, 64)


class _Measured(StageRun):
    """Takes what a stage logs and keeps the speed and memory of its last report."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, float] = {}

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Keep what is logged."""
        self.told |= values

    @contextlib.contextmanager
    def part(
        self, name: str, settings: Mapping[str, Any], weights: Path
    ) -> Iterator["_Measured"]:
        """Keep what the training of an objective logs as well."""
        yield self


def run(stage: Stage, profile: Profile, *, check: bool) -> None:
    """Print the estimate of a stage; with ``check``, after six real steps.

    Raises:
        ArtifactError: The stage's inputs are not there.
        RoomError: A step does not fit into the memory.
    """
    section = _section(stage, profile)
    records = split_parts.read("train", stage)
    table = Table(title=f"{stage}: {escape(profile.model.source)}, {len(records)} pictures")
    table.add_column("")
    table.add_column("needs", justify="right")
    table.add_column("how known")
    least = _computed(table, stage, profile)
    _schedule(table, section, len(records))
    room = machine.room(paths.ARTIFACTS)
    an_image = _measured(table, stage, profile, records, room) if check else None
    out = console()
    out.print(table)
    out.print(
        f"This machine: {room.device}, {_size(room.memory)} memory of which "
        f"{_size(room.free_memory)} free, {_size(room.disk)} disk free; "
        f"{os.environ.get('ATELIER_PROCESSES', '1')} process(es).",
        highlight=False,
    )
    if an_image is not None:
        out.print(planned(stage, an_image))
    if least > room.memory:
        out.print(
            f"It will not fit: {_size(least)} before any pass. Set model.quantise or a smaller "
            "model.dtype, or take a larger device.",
            highlight=False,
        )
    if not check:
        out.print(f"Step time and memory of passes: `atelier estimate {stage} --check`.")


def _section(stage: Stage, profile: Profile) -> SFTParams | CPOParams:
    return profile.sft if stage == "sft" else profile.cpo


def _computed(table: Table, stage: Stage, profile: Profile) -> float:
    """Rows of what follows from the configuration; the bytes before any pass."""
    from atelier.models import parameter_count

    section = _section(stage, profile)
    loras = [section.lora] if stage == "sft" else [section.lora, profile.sft.lora]
    counted = parameter_count.outline(profile.model, loras)
    training = section.training
    trained = parameter_count.trained_bytes(
        counted.adapters[0], training.optimizer, averaged=training.ema_decay is not None
    )
    frozen = parameter_count.frozen_bytes(counted, profile.model)
    teacher = 4.0 * sum(counted.adapters[1:])
    base = f"{counted.frozen:,} weights in {_precision(profile.model)}"
    table.add_row("base, frozen", _size(frozen), f"computed: {base}")
    if stage == "cpo":
        table.add_row(
            "θ1, frozen", _size(teacher), f"computed: {counted.adapters[1]:,} weights"
        )
    table.add_row(
        "what learns",
        _size(trained),
        f"computed: {counted.adapters[0]:,} weights with gradient, {training.optimizer}"
        + (", average" if training.ema_decay is not None else ""),
    )
    state = trained - 4.0 * counted.adapters[0]  # checkpoints hold no gradients
    table.add_row(
        "disk: checkpoints",
        _size(state * training.checkpoints_kept),
        f"computed: {training.checkpoints_kept} kept",
    )
    return frozen + teacher + trained


def _precision(params: ModelParams) -> str:
    if params.quantise is None:
        return params.dtype
    return f"{params.dtype}, linear ones in {params.quantise}"


def _schedule(table: Table, section: SFTParams | CPOParams, images: int) -> None:
    training = section.training
    objectives = len(section.objectives) if isinstance(section, CPOParams) else 1
    epochs = training.steps * training.batch_images / max(images, 1)
    each = f" × {objectives} objectives" if objectives > 1 else ""
    table.add_row(
        "steps",
        f"{training.steps * objectives:,}",
        f"{training.batch_images} images a step, {epochs:.3g} epochs{each}",
    )


def _measured(
    table: Table, stage: Stage, profile: Profile, records: list[Record], room: machine.Room
) -> float:
    """Rows of what six steps showed; seconds that an image takes in a step."""
    section = _section(stage, profile)
    training = section.training
    few = records[: max(training.batch_images, 2)]
    told = _Measured()
    with _elsewhere(few):
        importlib.import_module(f"tasks.{stage}").run(_short(stage, profile), told)
        cache = _held(paths.CACHE)
    peak = told.told["memory_gb"] * 1e9
    seconds = training.batch_images / told.told["images_per_second"]
    objectives = len(section.objectives) if isinstance(section, CPOParams) else 1
    hours = seconds * training.steps * objectives / 3600
    table.add_row(
        "memory, at most", _size(peak), f"measured; {peak / room.memory:.0%} of it all"
    )
    table.add_row("a step", f"{seconds:.3g} s", f"measured over {_APART} steps")
    table.add_row("hours", f"{hours:.3g}", "a step times the steps; encoding comes before")
    table.add_row(
        "disk: cache",
        _size(cache * len(records) / len(few)),
        f"measured on {len(few)} pictures; prompts that repeat are kept once",
    )
    return 1 / told.told["images_per_second"]


def planned(stage: Stage, seconds: float) -> Table:
    """Return how long one epoch of large corpora takes on several such devices.

    Args:
        stage: Of one objective.
        seconds: That an image takes in a step here.
    """
    table = Table(title=f"{stage}: an epoch of one objective, from the measured step")
    table.add_column("pictures in training")
    for devices in _DEVICES:
        table.add_column(f"{devices} such devices" if devices > 1 else "this", justify="right")
    for images in _CORPORA:
        hours = (seconds * images / devices / 3600 for devices in _DEVICES)
        table.add_row(f"{images:,}", *(f"{one:,.3g} h" for one in hours))
    table.caption = "as if no device waited for another, and encoding were done"
    return table


def _short(stage: Stage, profile: Profile) -> Profile:
    """The profile with six steps, of one objective, and without grids."""
    section = _section(stage, profile)
    training = section.training.model_copy(
        update={"steps": _STEPS, "report_steps": _APART, "checkpoint_steps": _STEPS,
                "grids": None, "drift_stop": False}
    )  # fmt: skip
    changes: dict[str, object] = {"training": training}
    if isinstance(section, CPOParams):
        changes["objectives"] = {section.featured: section.objectives[section.featured]}
    return profile.model_copy(update={stage: section.model_copy(update=changes)})


@contextlib.contextmanager
def _elsewhere(records: list[Record]) -> Iterator[None]:
    """A folder that looks like this one but has few records, and is thrown away."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for path in here.iterdir():
            if path.name not in {paths.ARTIFACTS.name, paths.DVC_LOCK.name}:
                Path(path.name).symlink_to(path)
        paths.SPLIT.mkdir(parents=True)
        for folder in (paths.ANNOTATE, paths.SFT):
            if (here / folder).is_dir():
                folder.symlink_to(here / folder)
        (paths.SPLIT / "train.jsonl").write_text(annotations.lines(records), encoding="utf-8")
        yield


def _held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"
