"""``atelier labels``: judgements by people, from Label Studio or a table."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli import clone
from cli.commands import Command, Group

app = typer.Typer(
    cls=Group, help="Collect, import and compare judgements by people.", no_args_is_help=True
)
command = partial(app.command, cls=Command)


@command()
def export(
    folder: Annotated[
        Path, typer.Argument(parser=clone.path, help="Folder for the two files.")
    ],
    prefix: Annotated[
        str, typer.Option(help="Prefix that turns a file name into Label Studio's address.")
    ] = "/data/local-files/?d=",
) -> None:
    """Write Label Studio's interface and tasks, from the criteria and the judged images."""
    from tasks.commands import labels
    from tasks.commands.stage import checked_profile

    labels.export(checked_profile(), folder, prefix)


@command()
def read(
    file: Annotated[
        Path,
        typer.Argument(parser=clone.path, help="A CSV file, or Label Studio's JSON export."),
    ],
    out: Annotated[
        Path, typer.Argument(parser=clone.path, help="JSONL file for annotate.recorded.")
    ],
    annotator: Annotated[
        str | None, typer.Option(help="Name of the annotator, if the CSV has none.")
    ] = None,
) -> None:
    """Convert people's labels to judgements that `annotator: recorded` replays."""
    from tasks.commands import labels
    from tasks.commands.stage import checked_profile

    labels.read(checked_profile(), file, out, annotator)


@command()
def count() -> None:
    """Count the judgements of annotate: per annotator, per rule, per criterion and pole."""
    from tasks.commands import labels

    labels.count()


@command()
def compare(
    files: Annotated[
        list[Path], typer.Argument(parser=clone.path, help="JSONL files of judgements.")
    ],
    leaves: Annotated[
        bool, typer.Option("--leaves", help="Show every criterion, not only the roots.")
    ] = False,
) -> None:
    """Measure how far each two annotators agree: kappa, and F1 of each pole, with intervals."""
    from tasks.commands import labels

    labels.compare(files, leaves)
