"""``atelier estimate sft|cpo``: memory, time and disk of a training.

Parameter counts follow from configurations, and from those the size of weights, gradients and
optimizer state, of passes and of what is encoded: they are *computed* (``needs``). How fast a
device is cannot be computed. What ``benchmarks.gpu_step`` measured on one is used where there
is such a file (``pace``). ``--check`` makes six real steps on some of the pictures, in a
temporary folder, and prints what was *measured*.
"""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from atelier.config.model import public_name
from atelier.config.objectives import CPOParams
from atelier.config.profile import Profile
from atelier.config.training import SFTParams
from atelier.criteria import annotations
from atelier.criteria.annotations import Record
from atelier.models.costs import measured_steps, pace
from atelier.models.costs.measured_steps import Measured, Step
from tasks.run import machine, paths, split_parts
from tasks.run.console import console
from tasks.tracking.mlflow_runs import StageRun
from tasks.training import needs
from tasks.training.needs import Stage, size

_STEPS = 6  # of a check: two reports of three steps, the second of which is timed
_APART = 3
_CORPORA = (needs.PAPER, 1_000_000)  # pictures: the paper's corpus, and a hundred of them
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


def run(
    stage: Stage,
    profile: Profile,
    *,
    check: bool,
    hour: float | None = None,
    measured: Path | None = None,
) -> None:
    """Print the estimate of a stage; with ``check``, after six real steps.

    Before pictures were divided, it is that of as many as the paper's corpus has.

    Args:
        stage: Which.
        profile: In force.
        check: Whether steps are made.
        hour: What an hour of the device costs, for the price of an epoch.
        measured: Figures of ``benchmarks.gpu_step``; None: those of this folder, if any.

    Raises:
        ArtifactError: The stage's inputs are not there; or the figures are none.
        RoomError: A step does not fit into the memory.
    """
    figures = _figures(measured)
    divided = check or (paths.SPLIT / "train.jsonl").is_file()
    records = split_parts.read("train", stage) if divided else needs.imagined(profile)
    needed = needs.Needs(stage, profile, records)
    base = escape(public_name(profile.model))
    table = Table(title=f"{stage}: {base}, {len(records):,} pictures")
    if not divided:
        table.caption = (
            f"assumed: {len(records):,} pictures as of the paper's corpus, each with a caption "
            f"of its own and {needs.ATTRIBUTES} attributes; `dvc repro split` has yours"
        )
    table.add_column("")
    table.add_column("needs", justify="right")
    table.add_column("how known")
    for one in (*needed.weights(), *needed.device(), needed.host(), *needed.disk()):
        table.add_row(one.name, size(one.bytes), escape(one.how))
    training = needed.section.training
    found = pace.of(needed.trainings(), profile.model, training, figures)
    for case in found.measured[:1]:
        _add_memory(table, case, found.device)
    _schedule(table, needed, found, len(records), profile.split.train, hour)
    room = machine.room(paths.ARTIFACTS)
    an_image = None
    if check:
        an_image = _measured(table, stage, profile, records, room)
    out = console()
    out.print(table)
    out.print(
        f"This machine: {room.device}, {size(room.memory)} memory of which "
        f"{size(room.free_memory)} free, {size(room.disk)} disk free; "
        f"{os.environ.get('ATELIER_PROCESSES', '1')} process(es).",
        highlight=False,
    )
    if an_image is not None:
        out.print(planned(stage, an_image, hour))
    elif found.measured and found.measured[0].seconds_per_image is not None:
        out.print(planned(stage, found.measured[0].seconds_per_image, hour, found.device))
    _memory(out, needed, room.memory)
    disk = sum(one.bytes for one in needed.disk())
    if disk > room.disk:
        out.print(
            f"The disk is too small: {size(disk)} are needed. Set model.store_texts: false or "
            "fewer checkpoints_kept, or let artifacts/ be a link to a larger disk.",
            highlight=False,
        )
    if not check:
        out.print(f"Hours and memory on this device: `atelier estimate {stage} --check`.")


def _figures(file: Path | None) -> Measured | None:
    """What was measured on a device: in ``file``, or in this folder; None if nothing was."""
    if file is None and not paths.GPU_STEP.is_file():
        return None
    return measured_steps.read(file or paths.GPU_STEP)


def _memory(out: Console, needed: needs.Needs, memory: int) -> None:
    """Say which phases do not fit, and what helps there."""
    least = needed.base + needed.teacher + needed.learning
    if least > memory:
        out.print(
            f"It will not fit: {size(least)} before any pass. Set model.quantise or a smaller "
            "model.dtype, or take a larger device.",
            highlight=False,
        )
        return
    cures = {
        "encoding": "model.quantise or a smaller model.dtype",
        "training": "the training's images_at_once: 1, gradient_checkpointing: true",
        "painting": "model.codec.tile_pixels: 512, a smaller generate.batch_images",
    }
    for one in needed.device():
        if one.bytes > memory:
            phase = one.name.removeprefix("device: ")
            out.print(
                f"{phase.capitalize()} will not fit: {size(one.bytes)}. Set {cures[phase]}, "
                "or take a larger device.",
                highlight=False,
            )


def _section(stage: Stage, profile: Profile) -> SFTParams | CPOParams:
    return profile.sft if stage == "sft" else profile.cpo


def _add_memory(table: Table, case: Step, device: str) -> None:
    """Add what a measured training held on its device."""
    table.add_row(
        "device: training",
        size(1e9 * (case.peak_memory_gb or 0.0)),
        f"measured on {device}: {case.objective}, {case.at_once()} images at once, a LoRA of "
        f"rank {case.rank}",
    )


def _schedule(
    table: Table,
    needed: needs.Needs,
    found: pace.Pace,
    images: int,
    share: float,
    hour: float | None,
) -> None:
    section = needed.section
    training = section.training
    objectives = len(section.objectives) if isinstance(section, CPOParams) else 1
    epochs = training.steps * training.batch_images / max(images, 1)
    each = f" × {objectives} objectives" if objectives > 1 else ""
    table.add_row(
        "steps",
        f"{training.steps * objectives:,}",
        f"set: {training.batch_images} images a step, {epochs:.3g} epochs{each}",
    )
    known = {0: "computed", objectives: "measured"}.get(len(found.measured), "in part measured")
    epoch = found.seconds * images / 3600
    table.add_row(f"hours of an epoch, {found.device}", f"{epoch:.3g}", found.how)
    table.add_row(f"hours, {found.device}", f"{epoch * epochs:.3g}", f"{known}: all steps")
    paper = found.seconds * needs.PAPER * share / 3600
    table.add_row(
        f"an epoch of {needs.PAPER:,} paintings",
        f"{paper:.3g} h" + _price(paper, hour),
        f"{known}: {found.device}-hours for the {share:.0%} in training"
        + ("" if hour is None else f", at {hour:g} an hour"),
    )


def _price(hours: float, hour: float | None) -> str:
    """What so many hours cost, where it is known what one does."""
    return "" if hour is None else f", {hours * hour:,.2f}"


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
    an_image = 1 / told.told["images_per_second"]
    seconds = training.batch_images * an_image
    objectives = len(section.objectives) if isinstance(section, CPOParams) else 1
    hours = seconds * training.steps * objectives / 3600
    table.add_row(
        "memory, at most", size(peak), f"measured; {peak / room.memory:.0%} of it all"
    )
    table.add_row("a step", f"{seconds:.3g} s", f"measured over {_APART} steps")
    table.add_row(
        "hours of an epoch",
        f"{an_image * len(records) * objectives / 3600:.3g}",
        "measured: a step times the steps of an epoch"
        + (f", of {objectives} objectives" if objectives > 1 else ""),
    )
    table.add_row(
        "hours", f"{hours:.3g}", "measured: a step times the steps; encoding comes before"
    )
    table.add_row(
        "disk: cache",
        size(cache * len(records) / len(few)),
        f"measured on {len(few)} pictures; prompts that repeat are kept once",
    )
    return an_image


def planned(
    stage: Stage, seconds: float, hour: float | None = None, device: str | None = None
) -> Table:
    """Return how long one epoch of large corpora takes on several such devices.

    Args:
        stage: Of one objective.
        seconds: That an image takes in a step.
        hour: What an hour of one such device costs; None: no price is shown.
        device: On which it was measured; None: on this one.
    """
    where = "" if device is None else f" on {device}"
    table = Table(title=f"{stage}: an epoch of one objective, from the step measured{where}")
    table.add_column("pictures in training")
    one = "this" if device is None else "one"
    for devices in _DEVICES:
        table.add_column(f"{devices} such devices" if devices > 1 else one, justify="right")
    for images in _CORPORA:
        hours = (seconds * images / devices / 3600 for devices in _DEVICES)
        every = seconds * images / 3600
        table.add_row(f"{images:,}" + _price(every, hour), *(f"{one:,.3g} h" for one in hours))
    table.caption = "as if no device waited for another, and encoding were done"
    if hour is not None:
        table.caption += f"; prices at {hour:g} an hour of a device"
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
