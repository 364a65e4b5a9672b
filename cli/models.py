"""Commands for trained models: generate images, compare, export, register."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli import clone
from cli.commands import Command

app = typer.Typer()
command = partial(app.command, cls=Command, rich_help_panel="Models")


@command()
def generate(
    prompts: Annotated[
        list[str], typer.Argument(help="Prompts, one column of the grid for each.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            parser=clone.model,
            metavar="MODEL",
            help="base, theta1, an objective's name, a LoRA's file or folder (./lora), the "
            "folder of another base (base/old), or an address in the registry "
            "(models:/…@champion); one row of the grid for each. NAME=MODEL names the row.",
            show_default="base and the profile's featured objective",
        ),
    ] = None,
    promote: Annotated[
        list[str] | None,
        typer.Option(
            help="A criterion or branch: add its good pole to the prompt. light=0.5: turn the "
            "dial of a root (`atelier dials`) by that share."
        ),
    ] = None,
    suppress: Annotated[
        list[str] | None,
        typer.Option(
            help="A criterion or branch: guide away from its bad pole. light=0.5: turn the "
            "dial of a root the other way, away from its good poles."
        ),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Seed of the noise.", show_default="0")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Sampling steps.", show_default="as `generate` has"),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=1, help="Classifier-free guidance.", show_default="as `generate` has"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path,
            help="Folder for the grid and the images.",
            show_default="artifacts/paint",
        ),
    ] = None,
) -> None:
    """Generate images with several models side by side, steered by criteria."""
    from tasks.commands import paint
    from tasks.commands.stage import checked_profile

    profile = checked_profile()
    wish = paint.Wish(
        prompts=prompts,
        models=model or ["base", profile.cpo.featured],
        promote=promote or [],
        suppress=suppress or [],
        seeds=seed or [0],
        steps=steps,
        guidance=guidance,
        out=out or Path("artifacts/paint"),
    )
    typer.echo(paint.run(profile, wish))


@command()
def compare(
    first: Annotated[
        str,
        typer.Argument(
            parser=clone.weights,
            metavar="FIRST",
            help="The model to beat: serving, theta/2, or a LoRA's file or folder (./lora).",
        ),
    ],
    second: Annotated[
        str,
        typer.Argument(
            parser=clone.weights, metavar="SECOND", help="The model that may replace it."
        ),
    ],
    slack: Annotated[
        float, typer.Option(min=0, help="By which share the second's FID may be worse.")
    ],
    promote: Annotated[
        bool, typer.Option("--promote", help="Move the alias `serving` if the rule allows it.")
    ] = False,
    crown: Annotated[
        bool,
        typer.Option("--crown", help="Move the alias `champion` by the same rule."),
    ] = False,
    pairwise: Annotated[
        bool,
        typer.Option(
            "--pairwise",
            help="Let the annotator see both pictures, too: the win rate by criterion.",
        ),
    ] = False,
    as_flow: Annotated[
        bool,
        typer.Option("--as-flow", help="Run as a Prefect flow, which waits for a free GPU."),
    ] = False,
) -> None:
    """Compare two registered models on the same captions and noise."""
    if as_flow:
        from cli import flow

        flow.compare(first, second, slack, promote, crown, pairwise)
    from tasks.commands import compare as comparison
    from tasks.commands.stage import checked_profile

    profile = checked_profile()
    comparison.run(
        profile, first, second, promote=promote, slack=slack, crown=crown, pairwise=pairwise
    )


class Precision(StrEnum):
    """The precisions in which a LoRA can be written."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@command()
def export(
    model: Annotated[
        str,
        typer.Argument(
            parser=clone.model,
            metavar="MODEL",
            help="theta1, an objective's name, a LoRA's file or folder, or models:/…",
        ),
    ],
    file: Annotated[
        Path, typer.Argument(parser=clone.path, help="The file to write, *.safetensors.")
    ],
    dtype: Annotated[
        Precision | None, typer.Option(help="Of the weights.", show_default="as trained")
    ] = None,
) -> None:
    """Write a LoRA in the layout that ComfyUI reads; of SDXL, FLUX and Chroma kohya's."""
    from tasks.commands import export as exporting
    from tasks.commands.stage import checked_profile

    exporting.run(checked_profile(), model, file, dtype and dtype.value)
    typer.echo(file)


@command()
def dials(
    model: Annotated[
        str,
        typer.Option(
            parser=clone.model, metavar="MODEL", help="What they are added to, as in generate."
        ),
    ] = "base",
    root: Annotated[
        list[str] | None,
        typer.Option(help="A root of the criteria.", show_default="every root"),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the training of a dial.")] = 40,
    share: Annotated[
        float, typer.Option(min=0.1, max=5, help="Of a whole turn, to either side.")
    ] = 1.0,
    pictures: Annotated[
        int, typer.Option(min=4, help="Test captions painted with each dial, to either side.")
    ] = 48,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path,
            help="Folder for the matrix, the page and the pictures.",
            show_default="artifacts/dials-measured",
        ),
    ] = None,
    document: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path,
            help="Markdown file with marks, to write the matrix into as well.",
        ),
    ] = None,
) -> None:
    """Train a dial for each root, and measure what each moves and what it disturbs."""
    from tasks.commands import dials as turning
    from tasks.commands.stage import checked_profile

    wish = turning.Wish(model, root or [], steps, share, pictures, out, document)
    typer.echo(turning.run(checked_profile(), wish))


@command()
def vary(
    variation: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUES",
            help="As cpo.objectives.cpo-s.omega=0,1,2 or generate.steps=2,4,8; one grid for "
            "each.",
            show_default="those that the marks in --document name",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a setting of all rows, as cpo.training.steps=40.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            parser=clone.model,
            metavar="MODEL",
            help="What is sampled where generate.… varies: base, theta1 or an objective.",
        ),
    ] = "theta1",
    pictures: Annotated[
        int, typer.Option(min=2, help="Test captions painted and judged for each row.")
    ] = 48,
    columns: Annotated[
        int, typer.Option(min=1, help="Different captions that a grid shows.")
    ] = 6,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path,
            help="Folder for the grids and how they were made.",
            show_default="artifacts/vary",
        ),
    ] = None,
    document: Annotated[
        Path | None,
        typer.Option(
            parser=clone.path, help="Markdown file with marks, to write the grids into as well."
        ),
    ] = None,
) -> None:
    """Paint the same captions and noise while one setting takes several values.

    A setting of an objective is trained for each value, in a copy of the repository.
    """
    from atelier.errors import ParamsError
    from tasks.commands import vary as varying

    if variation:
        variations = [varying.parse(one) for one in variation]
    elif document is not None:
        variations = varying.in_document(document)
    else:
        raise ParamsError("give NAME=VALUES, or --document with a file whose marks name them")
    from flows.dvc import varied

    wish = varying.Wish(
        variations, model, pictures, columns, out or Path("artifacts/vary"), document
    )
    for file in varied.run(wish, setting or []):
        typer.echo(file)


@command()
def registry() -> None:
    """Bring MLflow's model registry up to date with dvc.lock."""
    from tasks.tracking import links
    from tasks.tracking import registry as models

    models.run()
    for line in links.lines():
        typer.echo(line)


@command()
def conflicts(
    images: Annotated[int, typer.Option(min=5, help="Training images to measure on.")] = 64,
    times: Annotated[int, typer.Option(min=1, help="Noisy latents per image.")] = 4,
) -> None:
    """Measure which criteria conflict: the angles between their directions in θ1."""
    from tasks.commands import conflicts as measuring
    from tasks.commands.stage import checked_profile

    measuring.run(checked_profile(), measuring.Look(images, times))
