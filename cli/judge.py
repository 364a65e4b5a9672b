"""``atelier judge``: certificates of judges, and pairs that a judge compares."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli import clone
from cli.commands import Command, Group

app = typer.Typer(
    cls=Group, help="Examine a judge, or let it compare pictures.", no_args_is_help=True
)
command = partial(app.command, cls=Command)


@command()
def certify(
    judge: Annotated[
        Path | None,
        typer.Option(
            "--judge",
            parser=clone.path,
            help="JSONL file with the answers of the judge, a person for example.",
            show_default="the profile's annotator",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Whose answers of --judge.", show_default="there is one annotator"),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            parser=clone.path,
            help="JSONL files with what people, or other judges, said of the same pictures.",
            show_default="the starter's: its painter and its independent judge",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path,
            help="Pictures to examine on.",
            show_default="the starter's: new drawings; else data/",
        ),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=2, help="Pictures, at most; each is judged several times.")
    ] = 200,
    pairs: Annotated[int, typer.Option(min=0, help="Pairs of pictures to compare.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of pictures.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path,
            help="Folder for the certificate and its page.",
            show_default="certificates",
        ),
    ] = None,
) -> None:
    """Examine a judge by controls and against others; write its certificate and a page."""
    from tasks.commands import certify as certifying
    from tasks.commands.stage import checked_profile
    from tasks.run import paths

    wish = certifying.Wish(
        judge=judge,
        name=name,
        against=against or [],
        folder=folder,
        pictures=pictures,
        pairs=pairs,
        seed=seed,
        out=out or paths.CERTIFICATES,
    )
    typer.echo(certifying.run(checked_profile(), wish))


@command()
def pairs(
    out: Annotated[
        Path,
        typer.Argument(
            parser=clone.path,
            help="CSV to write, inside data/ (data/.pairs.csv), for cpo.pairs.table.",
        ),
    ],
    criterion: Annotated[
        list[str] | None,
        typer.Option(help="A criterion or branch to compare by.", show_default="all"),
    ] = None,
    neighbours: Annotated[
        int, typer.Option(min=1, help="Partners that each picture meets.")
    ] = 2,
    most: Annotated[int, typer.Option(min=1, help="Pairs to compare, at most.")] = 10_000,
) -> None:
    """Let the annotator compare training pictures of one caption: pairs for DPO and others."""
    from tasks.commands import judge_pairs
    from tasks.commands.stage import checked_profile

    judge_pairs.run(checked_profile(), out, criterion or [], neighbours, most)
