"""Commands for the small base, the annotator and the metrics' weights."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli import clone
from cli.commands import Command

app = typer.Typer()
command = partial(app.command, cls=Command, rich_help_panel="Data and inputs")


@command()
def base() -> None:
    """Train the small base model of this profile, from random weights or further."""
    from tasks.commands import stage

    stage.run(stage.BASE)


@command()
def features() -> None:
    """Train the small network whose features FID compares."""
    from tasks.commands import features as training

    training.run()


@command()
def agreement() -> None:
    """Measure how often the annotator agrees with the truth of the starter paintings."""
    from tasks.commands import agreement as measuring

    measuring.run()


@command()
def weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Metrics or weights.", show_default="the profile's metrics"),
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download absent files.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Verify every checksum.")] = False,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", parser=clone.path, help="Copy absent files from this folder instead."
        ),
    ] = None,
) -> None:
    """List the weights that metrics need; download or verify them."""
    from tasks.commands import weights as listing
    from tasks.commands.stage import checked_profile

    listing.run(checked_profile(), names or [], fetch=fetch, check=check, source=source)
