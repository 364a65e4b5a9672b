"""Commands for servers and machine: doctor, up, down, deploy, serve."""

import sys
from collections.abc import Iterable
from functools import partial
from typing import Annotated

import typer

from cli.commands import Command

app = typer.Typer()
command = partial(app.command, cls=Command, rich_help_panel="Machine and servers")


@command()
def doctor() -> None:
    """Check this machine, and print a cure for each thing that is missing."""
    from flows.infra import doctor as checks

    raise typer.Exit(checks.run())


@command()
def up(
    prefect_port: Annotated[
        int | None,
        typer.Option(
            help="Port of Prefect's server.", show_default="this clone's last, or from 4200"
        ),
    ] = None,
    mlflow_port: Annotated[
        int | None,
        typer.Option(
            help="Port of MLflow's server.", show_default="this clone's last, or from 5000"
        ),
    ] = None,
) -> None:
    """Start Prefect's and MLflow's servers, a worker and live pages, for this machine only."""
    from flows.infra import local_services

    _show(local_services.up(prefect_port, mlflow_port))


@command()
def down() -> None:
    """Stop what `atelier up` started."""
    from flows.infra import local_services

    _show(local_services.down())


@command()
def live(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 4300,
    hour_price: Annotated[
        float,
        typer.Option(
            min=0,
            envvar="ATELIER_HOUR_PRICE",
            help="Price of an hour of a GPU, or of a core where there is none.",
        ),
    ] = 0.0,
) -> None:
    """Serve a live page for each run, on this machine only: reasons, curves, pictures, price.

    Its buttons stop a run at its last checkpoint, and continue it. It shows runs of
    `dvc repro`, `atelier run` and Prefect's deployments.
    """
    from flows.live import server

    server.check_free(port)
    sys.stdout.write(f"live pages are on http://{server.HOST}:{port}\n")
    sys.stdout.flush()
    server.serve(port, hour_price)


@command()
def deploy() -> None:
    """Create pools, limits and automations on Prefect's server, and deploy prefect.yaml."""
    from flows.infra import prefect_setup

    _show(prefect_setup.setup())
    _show(prefect_setup.deploy())


@command()
def notify(
    address: Annotated[
        str, typer.Argument(help="A webhook, as Slack, Mattermost, Discord or Teams has.")
    ],
) -> None:
    """Send a message when a run fails or a night is surprising: new champion, drift, FID."""
    from flows.infra import doctor, notifications

    doctor.expect_server()
    _show(notifications.setup(address))


@command()
def serve() -> None:
    """Run the deployments of prefect.yaml in this process, without a worker, until Ctrl-C."""
    from flows.infra import prefect_setup

    prefect_setup.serve()


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
