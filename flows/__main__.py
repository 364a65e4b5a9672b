"""``python -m flows <command>``: run the pipeline through Prefect, and what belongs to it."""

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atelier.errors import AtelierError, ParamsError

if TYPE_CHECKING:
    from prefect import Flow, State

    from flows.dvc.overrides import Changes

app = typer.Typer(
    help="When and where the stages run; from the root of the repository.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_SET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # So often a run says that it lives; see flows.infra.prefect_setup.WATCH.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


@app.command()
def reproduce(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages; none means all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run unchanged ones too.")] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="For this run alone, as cpo.training.steps=40."),
    ] = None,
    on_workers: Annotated[
        bool, typer.Option("--on-workers", help="Each stage on a machine of its pool.")
    ] = False,
) -> None:
    """Bring stages up to date, as Prefect tasks that its pages show."""
    from flows.dvc import stages

    stages.read(targets or ())  # a mistyped target is said before Prefect starts
    wanted = _changes(setting or ())
    _expect_server()
    from flows.reproduce import reproduce as run

    where = "workers" if on_workers else "here"
    state = run(targets, force, wanted, where, return_state=True)
    raise typer.Exit(0 if state.is_completed() else 1)


@app.command()
def plan(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages; none means all.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="As for reproduce; nothing stays changed."),
    ] = None,
) -> None:
    """Say what would run and why, what would be restored, and how long it would take."""
    from flows.dvc import plan_table

    plan_table.run(targets or (), _changes(setting or ()))


_SHARDS = typer.Option(min=1, help="Parts of the pictures; some times the workers.")
_WORKERS = typer.Option(min=1, help="Processes on this machine.")
_SCHEDULER = typer.Option(help="Of Dask, as tcp://127.0.0.1:8786; its workers, none here.")


@app.command()
def annotate(
    shards: Annotated[int, _SHARDS],
    workers: Annotated[int, _WORKERS] = 1,
    scheduler: Annotated[str | None, _SCHEDULER] = None,
) -> None:
    """Judge the pictures of data/ on Dask's workers, then run the stage annotate."""
    from flows import sharded

    _spread(sharded.annotate_sharded, shards, workers, scheduler)


@app.command()
def evaluate(
    shards: Annotated[int, _SHARDS],
    workers: Annotated[int, _WORKERS] = 1,
    scheduler: Annotated[str | None, _SCHEDULER] = None,
) -> None:
    """Paint what is compared on Dask's workers, then run the stage evaluate."""
    from flows import sharded

    _spread(sharded.evaluate_sharded, shards, workers, scheduler)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="The model to beat, as serving or theta/2.")],
    second: Annotated[str, typer.Argument(help="The one that may take its place.")],
    slack: Annotated[
        float, typer.Option(min=0, help="By which share the second's FID may be worse.")
    ],
    promote: Annotated[
        bool, typer.Option("--promote", help="Move the alias `serving` if the rule says so.")
    ] = False,
) -> None:
    """Let two registered models paint the same captions, and say which is better."""
    _expect_server()
    from flows.compare import compare as run

    state = run(first, second, slack, promote, return_state=True)
    raise typer.Exit(0 if state.is_completed() else 1)


@app.command()
def setup() -> None:
    """Create what the flows need on the Prefect server; what is there already is kept."""
    from flows.infra import prefect_setup

    for line in prefect_setup.setup():
        sys.stdout.write(line + "\n")


@app.command()
def doctor() -> None:
    """Check this machine, and say what to do about what is missing."""
    from flows.infra import doctor as checks

    raise typer.Exit(checks.run())


@app.command()
def up(
    prefect_port: Annotated[int, typer.Option(help="Of Prefect's server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow's server.")] = 5000,
) -> None:
    """Start Prefect's and MLflow's servers and a worker, on this machine alone."""
    from flows.infra import local_services

    for line in local_services.up(prefect_port, mlflow_port):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


@app.command()
def down() -> None:
    """Stop what `up` started."""
    from flows.infra import local_services

    for line in local_services.down():
        sys.stdout.write(line + "\n")


@app.command()
def serve() -> None:
    """Offer the deployments of prefect.yaml in Prefect's pages, run here, without a worker."""
    from flows.infra import prefect_setup

    prefect_setup.serve()


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="of params/NAME.yaml and docs/NAME.md")] = "study",
) -> None:
    """Run the grid of params/NAME.yaml, tuned fairly, and write docs/NAME.md.

    Without a server; the deployment study/here is the same as Prefect tasks.
    """
    from flows.dvc import study_runs as grid

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    grid.run(name, tell)


def _spread(
    run: "Flow[..., State[Any]]", shards: int, workers: int, scheduler: str | None
) -> None:
    from flows import sharded

    sharded.runner(workers, scheduler)  # what is absent is said before Prefect starts
    _expect_server()
    state = run(shards, workers, scheduler, return_state=True)
    raise typer.Exit(0 if state.is_completed() else 1)


def _expect_server() -> None:
    from flows.infra import doctor

    doctor.expect_server()


def _changes(settings: Iterable[str]) -> "Changes":
    """Return the changes that ``--set name=value`` asks for; values are YAML."""
    import yaml

    from flows.dvc.overrides import Changes

    others = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise ParamsError(
                f"--set {setting}: should be name=value, as cpo.training.steps=40"
            )
        others[name] = yaml.safe_load(value)
    return Changes(others=others)


def main() -> None:
    """Run the command line; what an operator can fix is a paragraph, exit code 2."""
    for variable, value in _SET.items():
        os.environ.setdefault(variable, value)
    try:
        app(prog_name="python -m flows")
    except AtelierError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
