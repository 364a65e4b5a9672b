"""``python -m tasks <stage>``: the command of each stage in dvc.yaml.

All other commands are `atelier`'s (the package ``cli``). Their old names here still run them.
"""

import typer

from tasks.run import old_commands, operator_errors

app = typer.Typer(
    help="Run one stage of dvc.yaml, from the root of the repository. All other commands: "
    "`atelier --help`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_RENAMED = {
    "annotate --dry-run": "estimate annotate",
    "sft --check": "estimate sft --check",
    "cpo --check": "estimate cpo --check",
    "table": "results",
    "paint": "generate",
    "survey analyse": "survey analyze",
} | {
    name: name
    for name in (
        "agreement", "compare", "conflicts", "criteria", "data", "estimate", "export",
        "features", "labels", "registry", "survey", "weights",
    )
}  # fmt: skip


@app.command()
def code() -> None:
    """Hash what the code of each stage does, so that only a change of it runs the stage."""
    with operator_errors.shown():
        from tasks import code as stage

        stage.run()


@app.command()
def annotate() -> None:
    """Judge every image of data/ by the criteria."""
    _run("annotate")


@app.command()
def split() -> None:
    """Divide the judged images into training, validation and test."""
    _run("split")


@app.command()
def sft() -> None:
    """Fine-tune the base on captions with attributes; the result is θ1."""
    _run("sft")


@app.command()
def cpo() -> None:
    """Align the base with the targets that θ1 gives; the result is one θ per objective."""
    _run("cpo")


@app.command()
def generate() -> None:
    """Paint the test captions with base, θ1 and each θ."""
    _run("generate")


@app.command()
def evaluate() -> None:
    """Judge, score and measure what was painted."""
    _run("evaluate")


@app.command()
def report() -> None:
    """Compare the candidates: metrics, plots, report and model cards."""
    _run("report")


@app.command(hidden=True)
def base() -> None:
    """Train the small base of this profile; several processes start this command again."""
    _run("base")


def _run(name: str) -> None:
    with operator_errors.shown():
        from tasks.commands import stage

        stage.run(name)


if __name__ == "__main__":
    old_commands.forward("tasks", _RENAMED)
    app(prog_name="python -m tasks")
