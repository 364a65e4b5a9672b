"""``atelier criteria``: commands for the author of a criteria file."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli import clone
from cli.commands import Command, Group

app = typer.Typer(
    cls=Group, help="Show, check and calibrate a criteria file.", no_args_is_help=True
)
command = partial(app.command, cls=Command)

File = Annotated[
    Path | None,
    typer.Argument(
        parser=clone.path, help="A file of params/criteria/.", show_default="the profile's"
    ),
]
Folder = Annotated[Path, typer.Argument(parser=clone.path, help="A folder of images.")]
Captions = Annotated[
    str | None, typer.Option(help="Table of captions in the folder; they name the subject.")
]
Pixels = Annotated[
    int, typer.Option(min=64, help="Side of the central square that is measured.")
]


@command()
def show(
    file: File = None,
    html: Annotated[
        Path | None,
        typer.Option(parser=clone.path, help="Write a page to unfold and search instead."),
    ] = None,
) -> None:
    """Print the tree of criteria."""
    from tasks.commands import criteria

    criteria.show(file, html)


@command()
def check(file: File = None) -> None:
    """Report all mistakes of the file at once, and phrases that could be clearer."""
    from tasks.commands import criteria

    criteria.check(file)


@command()
def document(
    guide: Annotated[
        Path,
        typer.Argument(parser=clone.path, help="A Markdown file with marks for the tree."),
    ],
) -> None:
    """Write the tree of each criteria file that a guide names between its marks."""
    from tasks.commands import criteria

    criteria.document(guide)


@command()
def calibrate(
    folder: Folder,
    file: File = None,
    captions: Captions = None,
    pixels: Pixels = 512,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.49, help="Share of the values beyond a threshold.")
    ] = 0.2,
    write: Annotated[bool, typer.Option(help="Write the thresholds into the file.")] = False,
) -> None:
    """Propose thresholds for the measures from a folder of images."""
    from tasks.commands import measures

    measures.calibrate(folder, file, captions, pixels, share, write)


@command()
def propose(
    out: Annotated[
        Path,
        typer.Argument(
            parser=clone.path, help="Criteria file to write; one that is there is revised."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path, help="Table of pictures, with the columns file and label."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path, help="Where its pictures lie.", show_default="next to the table"
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(parser=clone.path, help="What an expert has written, as a text file."),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="What the pictures are.", show_default="as in OUT")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Attribute pairs, at most.")] = 8,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often the model proposes or revises.")
    ] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of held-out pictures.")] = 0,
) -> None:
    """Let the profile's model propose criteria from 20 to 200 labeled pictures, or a text."""
    from tasks.commands import propose as proposing
    from tasks.commands.stage import checked_profile

    wish = proposing.Wish(out, labels, folder, text, domain, pairs, rounds, seed)
    typer.echo(proposing.run(checked_profile(), wish))


@command()
def sheets(
    folder: Folder,
    out: Annotated[
        Path, typer.Argument(parser=clone.path, help="Folder for the sheets and the table.")
    ],
    file: File = None,
    captions: Captions = None,
    pixels: Pixels = 512,
) -> None:
    """Write contact sheets: the images nearest to each pole of each measured pair."""
    from tasks.commands import measures

    measures.sheets(folder, file, captions, pixels, out)
