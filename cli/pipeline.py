"""Commands of the pipeline: bring it up to date, plan, estimate, show results, study."""

import sys
from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import clone
from cli.commands import Command

if TYPE_CHECKING:
    from flows.dvc.overrides import Changes

app = typer.Typer()
command = partial(app.command, cls=Command, rich_help_panel="Pipeline")

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        help="Stages of dvc.yaml, with what they need.",
        show_default="all",
        autocompletion=clone.stages,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a setting for this run only, as cpo.training.steps=40.",
    ),
]
Shards = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Divide the images of `annotate` or `generate` among this many Dask tasks; "
        "take several times the number of workers.",
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="With --shards: processes to start here.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="With --shards: a Dask scheduler, as tcp://127.0.0.1:8786; its workers are used."
    ),
]

Slurm = Annotated[
    bool, typer.Option("--slurm", help="With --shards: start the workers as jobs of SLURM.")
]


@command()
def run(
    targets: Targets = None,
    setting: Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Run unchanged stages too.")] = False,
    on_workers: Annotated[
        bool, typer.Option("--on-workers", help="Run each stage on a machine of its pool.")
    ] = False,
    shards: Shards = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    slurm: Slurm = False,
) -> None:
    """Bring the stages of dvc.yaml up to date, as a Prefect flow."""
    from cli import flow
    from flows.dvc import stages

    stages.read(targets or ())  # a mistyped name is reported before Prefect starts
    changes = _changes(setting or ())
    if slurm:
        _refuse_slurm(shards, scheduler)
    if shards is not None:
        _refuse_beside_shards(targets, changes, force=force, on_workers=on_workers)
        flow.sharded((targets or [""])[0], shards, workers, scheduler, slurm)
    flow.reproduce(targets, force, changes, "workers" if on_workers else "here")


@command()
def plan(targets: Targets = None, setting: Settings = None) -> None:
    """Show which stages would run and why, which would be restored, and how long it takes."""
    from flows.dvc import plan_table

    plan_table.run(targets or (), _changes(setting or ()))


class Estimated(StrEnum):
    """The stages whose cost can be estimated."""

    ANNOTATE = "annotate"
    SFT = "sft"
    CPO = "cpo"


@command()
def estimate(
    stage: Annotated[Estimated, typer.Argument(help="The stage.", show_default=False)],
    check: Annotated[
        bool,
        typer.Option("--check", help="For a training: measure six real steps, then stop."),
    ] = False,
    hour: Annotated[
        float | None,
        typer.Option(
            help="What an hour of the device costs you, for the price of an epoch.",
            metavar="MONEY",
            min=0.0,
            show_default=False,
        ),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path,
            help="What `python -m benchmarks.gpu_step` measured on a device.",
            metavar="FILE",
            show_default="artifacts/gpu-step.json, if there",
        ),
    ] = None,
) -> None:
    """Estimate memory, time and disk of a training, or calls and cost of the annotator."""
    from tasks.commands.stage import checked_profile

    profile = checked_profile()
    if stage is Estimated.ANNOTATE:
        from tasks.annotation import estimate as annotation

        annotation.run(profile)
        return
    from tasks.training import estimate as training

    training.run(
        "sft" if stage is Estimated.SFT else "cpo",
        profile,
        check=check,
        hour=hour,
        measured=measured,
    )


@command()
def results() -> None:
    """Print the table of what `evaluate` measured, and where to see more."""
    from tasks.commands import table
    from tasks.tracking import links

    table.run()
    for line in links.lines():
        typer.echo(line)


@command()
def sweep(
    setting: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUES", help="As cpo.objectives.cpo-s.omega=1,2,4 or …=1..8."
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Let Optuna choose so many points.", show_default="the whole grid"
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Begin no point after so many.", show_default="no limit"),
    ] = None,
) -> None:
    """Run the pipeline for each point of a grid, or for points that Optuna chooses.

    Each point is an experiment, which `dvc exp show` and MLflow list; the working copy stays as
    it is.
    """
    from cli import flow

    flow.sweep(setting, trials, minutes)


@command()
def study(
    name: Annotated[
        str, typer.Argument(help="Of params/NAME.yaml and docs/NAME.md.")
    ] = "study",
) -> None:
    """Run the experiments of params/NAME.yaml and write docs/NAME.md (docs/studies.md).

    It runs without a Prefect server. The deployment study@… runs the same as Prefect tasks.
    """
    from flows.dvc import study_runs

    def show(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    study_runs.run(name, show)


def _changes(settings: Iterable[str]) -> "Changes":
    """Return the changes that ``--set`` asks for, proved to fit the profile."""
    from flows.dvc import overrides

    changes = overrides.parse(settings)
    overrides.check(changes)
    return changes


def _refuse_beside_shards(
    targets: list[str] | None, changes: "Changes", *, force: bool, on_workers: bool
) -> None:
    from atelier.errors import ParamsError
    from flows.dvc.overrides import AS_WRITTEN

    if targets not in (["annotate"], ["generate"]):
        raise ParamsError(
            "--shards needs one stage, `annotate` or `generate`, as in `atelier run annotate "
            "--shards 8`"
        )
    if force or on_workers or changes != AS_WRITTEN:
        raise ParamsError("--shards does not go with --set, --force or --on-workers")


def _refuse_slurm(shards: int | None, scheduler: str | None) -> None:
    from atelier.errors import ParamsError

    if shards is None:
        raise ParamsError(
            "--slurm starts the workers of --shards; to run whole stages as a job, `sbatch "
            "slurm/train.sbatch` (docs/slurm.md)"
        )
    if scheduler is not None:
        raise ParamsError("--slurm starts its own scheduler and workers; leave --scheduler out")
