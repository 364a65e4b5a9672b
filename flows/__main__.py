"""``python -m flows <command>``: run the pipeline through Prefect, and what belongs to it."""

import os
import sys
from typing import Annotated

import typer

from atelier.errors import AtelierError

app = typer.Typer(
    help="When and where the stages run; from the root of the repository.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


@app.command()
def reproduce(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages; none means all.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run unchanged ones too.")] = False,
) -> None:
    """Bring stages up to date, as Prefect tasks that its pages show."""
    from flows import stages

    stages.read(targets or ())  # a mistyped target is said before Prefect starts
    from flows.reproduce import reproduce as run

    state = run(targets, force, return_state=True)
    raise typer.Exit(0 if state.is_completed() else 1)


@app.command()
def setup() -> None:
    """Create what the flows need on the Prefect server: the concurrency limit `gpu`."""
    from flows import limits

    limits.ensure_gpu()
    sys.stdout.write("The limit `gpu` is there; its slots can be edited in Prefect's pages.\n")


@app.command()
def serve() -> None:
    """Offer `reproduce` in Prefect's pages, with a schedule that is switched off."""
    from prefect.schedules import Cron

    from flows import limits
    from flows.reproduce import reproduce as run

    limits.ensure_gpu()
    run.serve(
        name="here",
        schedules=[Cron("0 2 * * *", timezone="UTC", active=False)],
        description="`dvc repro`, a task for each stage, in this working copy.",
        tags=["atelier"],
    )


@app.command()
def deps() -> None:
    """Write the code that each stage imports into dvc.yaml."""
    from flows import deps as code

    for line in code.rewrite():
        sys.stdout.write(line + "\n")


def main() -> None:
    """Run the command line; what an operator can fix is a paragraph, exit code 2."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)
    try:
        app(prog_name="python -m flows")
    except AtelierError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
