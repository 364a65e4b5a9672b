"""The command `atelier`: its groups of commands, and where it starts."""

import os
from typing import Annotated

import typer

from cli import (
    annotation,
    clone,
    criteria,
    data,
    judge,
    labels,
    models,
    pipeline,
    servers,
    settings,
    survey,
)
from cli.commands import Group

app = typer.Typer(
    name="atelier",
    cls=Group,
    help="Align text-to-image diffusion models with fine-grained expert criteria. Works in any "
    "folder of a clone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # How often a run reports that it is alive; see flows.infra.prefect_setup.WATCH.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}

for panel in (pipeline, models, annotation, servers):
    app.add_typer(panel.app)
for name, group in (
    ("criteria", criteria),
    ("data", data),
    ("judge", judge),
    ("labels", labels),
    ("settings", settings),
    ("survey", survey),
):
    app.add_typer(group.app, name=name, rich_help_panel="Groups of commands")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("atelier"))
        raise typer.Exit


@app.callback()
def atelier(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    del version


def main() -> None:
    """Run the command line; the console script starts here."""
    clone.use_own_code()
    for variable, value in _PREFECT.items():
        os.environ.setdefault(variable, value)
    app(prog_name="atelier")
