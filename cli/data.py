"""``atelier data``: draw the starter paintings, check a folder of images, unpack a data set."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli import clone
from cli.commands import Command, Group

app = typer.Typer(
    cls=Group,
    help="Draw the starter paintings into data/, unless data/ has files; or check and unpack "
    "your own images.",
    invoke_without_command=True,
)
command = partial(app.command, cls=Command)


@app.callback()
def data(context: typer.Context) -> None:
    """Draw the starter paintings into data/, unless data/ has files."""
    if context.invoked_subcommand is None:
        from tasks.run import operator_errors

        with operator_errors.shown():
            clone.enter()
            draw()


@command()
def draw() -> None:
    """Draw the starter paintings into data/, unless data/ has files."""
    from tasks.commands import data as drawing

    drawing.run()


@command()
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(parser=clone.path, help="A folder of images.", show_default="data"),
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(help="A table in the folder to try.", show_default="the best guess"),
    ] = None,
) -> None:
    """Report which layout a folder has, how many images it has, and what will be set aside."""
    from tasks.commands import data_check
    from tasks.commands.stage import checked_profile

    data_check.run(folder or Path("data"), checked_profile().annotate, captions)


@command()
def unpack(
    source: Annotated[
        Path,
        typer.Argument(
            parser=clone.path, help="A Hugging Face data set in parquet or Arrow files."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(parser=clone.path, help="An empty folder.", show_default="data"),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Column of images.", show_default="image, …")
    ] = None,
    caption: Annotated[
        str | None, typer.Option(help="Column of captions.", show_default="caption, text, …")
    ] = None,
) -> None:
    """Write the images and captions of a packed data set as files."""
    from tasks.commands import data_unpack

    data_unpack.run(source, out or Path("data"), image, caption)
