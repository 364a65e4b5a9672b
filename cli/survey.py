"""``atelier survey``: a user study in which people compare images in pairs."""

from functools import partial
from typing import Annotated

import typer

from cli.commands import Command, Group

app = typer.Typer(
    cls=Group, help="Run a user study: people compare images in pairs.", no_args_is_help=True
)
command = partial(app.command, cls=Command)

Study = Annotated[str, typer.Argument(help="A folder of artifacts/survey/.")]
Number = Annotated[int, typer.Argument(help="Number of the invitation.")]


@command()
def make(study: Study) -> None:
    """Draw blind, balanced pairs from the images that `generate` painted."""
    from survey import make as making
    from tasks.commands.stage import checked_profile

    making.run(checked_profile(), study)


@command()
def invite(
    study: Study,
    group: Annotated[str, typer.Option(help="A group of the profile's survey.groups.")],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many people.")],
) -> None:
    """Print one link per person; it is shown only once, and only its hash is stored."""
    from survey.app import admin
    from tasks.commands.stage import checked_profile

    admin.invite(checked_profile(), study, group, count)


@command()
def revoke(
    study: Study,
    numbers: Annotated[list[int], typer.Argument(help="Numbers of the invitations.")],
) -> None:
    """Make links invalid; answers that were given with them stay."""
    from survey.app import admin

    admin.revoke(study, numbers)


@command()
def status(study: Study) -> None:
    """Print how many questions each person has answered; not the answers."""
    from survey.app import admin

    admin.status(study)


@command()
def export(study: Study, number: Number) -> None:
    """Print everything that is stored about one person, as JSON."""
    from survey.app import admin

    admin.export(study, number)


@command()
def delete(study: Study, number: Number) -> None:
    """Delete the invitation and the answers of one person permanently."""
    from survey.app import admin

    admin.delete(study, number)


@command()
def serve(
    study: Study,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8100,
) -> None:
    """Serve the questions in the browser until Ctrl-C; stopping loses no answer."""
    from survey.app import serve as serving
    from tasks.commands.stage import checked_profile

    serving.run(checked_profile(), study, host, port)


@command()
def analyze(study: Study) -> None:
    """Analyze the answers so far: a page, a JSON file, and tags of MLflow's models."""
    from survey import analyze as analysis

    analysis.run(study)
