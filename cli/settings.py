"""``atelier settings``: what the settings of profiles and criteria files mean."""

from functools import partial
from typing import Annotated

import typer

from cli.commands import Command, Group

app = typer.Typer(
    cls=Group, help="Explain settings; write schemas for editors.", no_args_is_help=True
)
command = partial(app.command, cls=Command)


@command()
def explain(
    name: Annotated[
        str,
        typer.Argument(
            help="A setting's dotted name, as cpo.objectives.cpo-s.omega; in place of an "
            "objective's name it may hold a method, as cpo.objectives.dpo.",
            show_default="all sections",
        ),
    ] = "",
    profile: Annotated[
        str | None,
        typer.Option(
            help="Whose values are shown.",
            show_default="the profile in force",
        ),
    ] = None,
) -> None:
    """Print what a setting means: unit, type, default, its value, and what stands below it."""
    from tasks.commands import settings

    settings.explain(name, profile)


@command()
def schema() -> None:
    """Write the JSON schemas of profiles, criteria and studies into params/schema/."""
    from tasks.commands import settings

    settings.write()
