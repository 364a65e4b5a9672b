"""Commands of the pipeline: bring it up to date, plan, estimate, show results, study."""

import sys
from collections.abc import Iterable
from enum import StrEnum
from functools import partial
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
) -> None:
    """Bring the stages of dvc.yaml up to date, as a Prefect flow."""
    from cli import flow
    from flows.dvc import stages

    stages.read(targets or ())  # a mistyped name is reported before Prefect starts
    changes = _changes(setting or ())
    if shards is not None:
        _refuse_beside_shards(targets, changes, force=force, on_workers=on_workers)
        flow.sharded((targets or [""])[0], shards, workers, scheduler)
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
) -> None:
    """Estimate memory, time and disk of a training, or calls and cost of the annotator."""
    from tasks.commands.stage import checked_profile

    profile = checked_profile()
    if stage is Estimated.ANNOTATE:
        from tasks.annotation import estimate as annotation

        annotation.run(profile)
        return
    from tasks.training import estimate as training

    training.run("sft" if stage is Estimated.SFT else "cpo", profile, check=check)


@command()
def results() -> None:
    """Print the table of what `evaluate` measured, and where to see more."""
    from tasks.commands import table

    table.run()


@command()
def study(
    name: Annotated[
        str, typer.Argument(help="Of params/NAME.yaml and docs/NAME.md.")
    ] = "study",
) -> None:
    """Run the experiments of params/NAME.yaml and write docs/NAME.md (docs/studies.md).

    It runs without a Prefect server. The deployment study/here runs the same as Prefect tasks.
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
