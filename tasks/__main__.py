"""``python -m tasks <stage>``: what dvc.yaml runs, and a few commands beside it.

Everything a person may have mistyped (the switch, the profile, the criteria) is checked
before anything heavy is imported. A mistake that an operator can fix is one paragraph
without a traceback, exit code 2.
"""

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from atelier.errors import AtelierError

if TYPE_CHECKING:
    from atelier.config.profile import Profile

app = typer.Typer(
    help="What each stage does to files; run from the root of the repository.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def code() -> None:
    """Hash what the code of each stage does, so that only a change of it runs the stage."""
    _run("code")


@app.command()
def annotate(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate calls, tokens and cost.")
    ] = False,
) -> None:
    """Judge every picture of data/ by the criteria."""
    if not dry_run:
        _run_stage("annotate")
        return
    with _clear_errors():
        profile = _checked_profile()
        importlib.import_module("tasks.annotation.estimate").run(profile)


@app.command()
def split() -> None:
    """Part the judged pictures into training, validation and test."""
    _run_stage("split")


Check = Annotated[
    bool, typer.Option("--check", help="Only try six steps, and say what the whole will need.")
]


@app.command()
def sft(check: Check = False) -> None:
    """Teach the base what the attributes mean; the result is θ1."""
    _estimate("sft", True) if check else _run_stage("sft")


@app.command()
def cpo(check: Check = False) -> None:
    """Align the base with the targets that θ1 gives; each objective's result is a θ."""
    _estimate("cpo", True) if check else _run_stage("cpo")


class Trained(StrEnum):
    """The stages whose need of memory and time can be estimated."""

    SFT = "sft"
    CPO = "cpo"


@app.command()
def estimate(
    stage: Annotated[Trained, typer.Argument(help="The stage that trains.")],
    check: Check = False,
) -> None:
    """Say what a training needs (weights, memory, steps, disk) and what this machine has."""
    _estimate(stage.value, check)


@app.command()
def evaluate() -> None:
    """Paint the test captions with base, θ1 and each θ, and compare."""
    _run_stage("evaluate")


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="theta1, an objective's name, a folder, or models:/…")
    ],
    file: Annotated[Path, typer.Argument(help="What is written, *.safetensors.")],
) -> None:
    """Write a LoRA of SDXL or FLUX in kohya's layout, for ComfyUI and AUTOMATIC1111."""
    with _clear_errors():
        importlib.import_module("tasks.commands.export").run(_checked_profile(), model, file)
        typer.echo(file)


@app.command()
def base() -> None:
    """Train the small base of this profile from nothing; no stage, its result is an input."""
    _run_stage("base")


@app.command()
def features() -> None:
    """Train the small network whose features FID compares; no stage, its result is an input."""
    _run("commands.features")


@app.command()
def data() -> None:
    """Draw the starter paintings into data/, unless something is there."""
    _run("commands.data")


@app.command()
def agreement() -> None:
    """Measure how often the annotator sees what the starter's painter meant."""
    _run("commands.agreement")


@app.command()
def conflicts(
    images: Annotated[
        int, typer.Option(min=5, help="Training images that are looked at.")
    ] = 64,
    times: Annotated[int, typer.Option(min=1, help="Noisy latents of each.")] = 4,
) -> None:
    """Say which criteria pull apart: the angles between what θ1 makes of each."""
    with _clear_errors():
        task = importlib.import_module("tasks.commands.conflicts")
        task.run(_checked_profile(), task.Look(images, times))


@app.command()
def table() -> None:
    """Print what evaluate found, and where to look on."""
    _run("commands.table")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="The model to beat, as serving or theta/2.")],
    second: Annotated[str, typer.Argument(help="The one that may take its place.")],
    slack: Annotated[
        float, typer.Option(min=0, help="By which share the second's FID may be worse.")
    ],
    promote: Annotated[
        bool, typer.Option("--promote", help="Move the alias `serving` if the rule says so.")
    ] = False,
) -> None:
    """Let two registered models paint the same captions, and say which is better."""
    with _clear_errors():
        importlib.import_module("tasks.commands.compare").run(
            _checked_profile(), first, second, promote=promote, slack=slack
        )


@app.command()
def weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Metrics, or weights.", show_default="the profile's metrics"),
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Bring what is absent.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Take every checksum.")] = False,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Take files from this folder, not from the network."),
    ] = None,
) -> None:
    """List the weights that metrics need and nobody ships; fetch or check them."""
    with _clear_errors():
        importlib.import_module("tasks.commands.weights").run(
            _checked_profile(), names or [], fetch=fetch, check=check, source=source
        )


@app.command()
def registry() -> None:
    """Make MLflow's model registry say what dvc.lock says."""
    _run("tracking.registry")


@app.command()
def paint(
    prompts: Annotated[
        list[str], typer.Argument(help="What is to be seen; several make columns.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="base, theta1, an objective's name, a folder with a LoRA, or an address in "
            "the registry (models:/…@champion); several make rows.",
            show_default="base, and the profile's featured objective",
        ),
    ] = None,
    promote: Annotated[
        list[str] | None,
        typer.Option(help="A criterion or branch whose good pole is asked for."),
    ] = None,
    suppress: Annotated[
        list[str] | None,
        typer.Option(help="A criterion or branch whose bad pole guidance leads away from."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Of the noise.", show_default="0")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps.", show_default="evaluate's")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(min=1, help="Classifier-free guidance.", show_default="evaluate's"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for grid and pictures.")] = Path(
        "artifacts/paint"
    ),
) -> None:
    """Paint with what was learned, several models side by side, steered by criteria."""
    with _clear_errors():
        profile = _checked_profile()
        painting = importlib.import_module("tasks.commands.paint")
        wish = painting.Wish(
            prompts=prompts,
            models=model or ["base", profile.cpo.featured],
            promote=promote or [],
            suppress=suppress or [],
            seeds=seed or [0],
            steps=steps,
            guidance=guidance,
            out=out,
        )
        typer.echo(painting.run(profile, wish))


criteria = typer.Typer(help="A criteria file, for the person who writes it.")
app.add_typer(criteria, name="criteria", no_args_is_help=True)

CriteriaFile = Annotated[
    Path | None,
    typer.Argument(help="A file of params/criteria/.", show_default="the profile's"),
]


@criteria.command()
def show(
    file: CriteriaFile = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to unfold and search instead.")
    ] = None,
) -> None:
    """Draw the tree in the terminal."""
    with _clear_errors():
        importlib.import_module("tasks.commands.criteria").show(file, html)


@criteria.command()
def check(file: CriteriaFile = None) -> None:
    """Name every mistake of the file at once, and what might be worded better."""
    with _clear_errors():
        importlib.import_module("tasks.commands.criteria").check(file)


@criteria.command()
def document(
    guide: Annotated[Path, typer.Argument(help="A Markdown file with marks for the tree.")],
) -> None:
    """Write the tree of each criteria file that a guide names between its marks."""
    with _clear_errors():
        importlib.import_module("tasks.commands.criteria").document(guide)


Folder = Annotated[Path, typer.Argument(help="A folder of pictures.")]
Captions = Annotated[
    str | None,
    typer.Option(help="Table of captions inside it; they say what a picture is."),
]
Pixels = Annotated[int, typer.Option(min=64, help="Side of the middle square measured.")]


@criteria.command()
def calibrate(
    folder: Folder,
    file: CriteriaFile = None,
    captions: Captions = None,
    pixels: Pixels = 512,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.49, help="Share of the values beyond a threshold.")
    ] = 0.2,
    write: Annotated[bool, typer.Option(help="Write the thresholds into the file.")] = False,
) -> None:
    """Propose the thresholds of measures from a folder of pictures."""
    with _clear_errors():
        importlib.import_module("tasks.commands.measures").calibrate(
            folder, file, captions, pixels, share, write
        )


@criteria.command()
def sheets(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="Where sheets and table are written.")],
    file: CriteriaFile = None,
    captions: Captions = None,
    pixels: Pixels = 512,
) -> None:
    """Show the pictures that speak most for each pole of each measured pair."""
    with _clear_errors():
        importlib.import_module("tasks.commands.measures").sheets(
            folder, file, captions, pixels, out
        )


labels = typer.Typer(help="Judgements by people: asked through Label Studio, read, compared.")
app.add_typer(labels, name="labels", no_args_is_help=True)


@labels.command(name="export")
def export_labels(
    folder: Annotated[Path, typer.Argument(help="Where the two files are written.")],
    prefix: Annotated[
        str, typer.Option(help="What makes an address of a file, for Label Studio.")
    ] = "/data/local-files/?d=",
) -> None:
    """Write Label Studio's interface and tasks, from the criteria and the judged pictures."""
    with _clear_errors():
        importlib.import_module("tasks.commands.labels").export(
            _checked_profile(), folder, prefix
        )


@labels.command(name="read")
def read_labels(
    file: Annotated[Path, typer.Argument(help="A CSV, or Label Studio's JSON export.")],
    out: Annotated[Path, typer.Argument(help="JSONL for annotate.recorded.")],
    annotator: Annotated[
        str | None, typer.Option(help="Who judged, if the CSV does not say.")
    ] = None,
) -> None:
    """Turn people's labels into judgements that `annotator: recorded` replays."""
    with _clear_errors():
        importlib.import_module("tasks.commands.labels").read(
            _checked_profile(), file, out, annotator
        )


@labels.command(name="count")
def count_labels() -> None:
    """Say who spoke in annotate, what of it counts, and how often each pole was seen."""
    with _clear_errors():
        importlib.import_module("tasks.commands.labels").count()


@labels.command(name="compare")
def compare_labels(
    files: Annotated[list[Path], typer.Argument(help="JSONL files of judgements.")],
    leaves: Annotated[
        bool, typer.Option("--leaves", help="Every criterion, not the roots alone.")
    ] = False,
) -> None:
    """Say how far any two annotators agree: kappa, and F1 of each pole, with intervals."""
    with _clear_errors():
        importlib.import_module("tasks.commands.labels").compare(files, leaves)


survey = typer.Typer(help="A user study: people compare painters, pair by pair.")
app.add_typer(survey, name="survey", no_args_is_help=True)

StudyName = Annotated[str, typer.Argument(help="A folder of artifacts/survey/.")]
Invitation = Annotated[int, typer.Argument(help="Number of the invitation.")]


@survey.command(name="make")
def make_survey(study: StudyName) -> None:
    """Draw blind, balanced pairs from what evaluate painted, as `survey:` says."""
    with _clear_errors():
        importlib.import_module("survey.make").run(_checked_profile(), study)


@survey.command(name="invite")
def invite_raters(
    study: StudyName,
    group: Annotated[str, typer.Option(help="Of the profile's survey.groups.")],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many people.")],
) -> None:
    """Print a link for each of so many people, once: only its hash is kept."""
    with _clear_errors():
        desk = importlib.import_module("survey.app.admin")
        desk.invite(_checked_profile(), study, group, count)


@survey.command(name="revoke")
def revoke_invitations(
    study: StudyName,
    numbers: Annotated[list[int], typer.Argument(help="Numbers of invitations.")],
) -> None:
    """Make links worthless; answers that were given with them stay."""
    with _clear_errors():
        importlib.import_module("survey.app.admin").revoke(study, numbers)


@survey.command(name="status")
def survey_status(study: StudyName) -> None:
    """Say how far everybody is; not what they answered."""
    with _clear_errors():
        importlib.import_module("survey.app.admin").status(study)


@survey.command(name="export")
def export_rater(study: StudyName, number: Invitation) -> None:
    """Print all that is stored of one person, as JSON."""
    with _clear_errors():
        importlib.import_module("survey.app.admin").export(study, number)


@survey.command(name="delete")
def delete_rater(study: StudyName, number: Invitation) -> None:
    """Delete one person's invitation and answers for good."""
    with _clear_errors():
        importlib.import_module("survey.app.admin").delete(study, number)


@survey.command(name="serve")
def serve_survey(
    study: StudyName,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8100,
) -> None:
    """Ask people, until Ctrl-C; whenever it ends, no answer is lost."""
    with _clear_errors():
        serving = importlib.import_module("survey.app.serve")
        serving.run(_checked_profile(), study, host, port)


@survey.command(name="analyse")
def analyse_survey(study: StudyName) -> None:
    """Say what the answers mean so far: a page, a JSON file, and MLflow's model versions."""
    with _clear_errors():
        importlib.import_module("survey.analyze").run(study)


def _estimate(stage: str, check: bool) -> None:
    with _clear_errors():
        importlib.import_module("tasks.training.estimate").run(
            stage, _checked_profile(), check=check
        )


def _run_stage(name: str) -> None:
    """Check what a person wrote, then run ``tasks.<name>`` under a tracked run."""
    with _clear_errors():
        profile = _checked_profile()
        from atelier import atomic
        from tasks import code
        from tasks.run import launch, machine, paths
        from tasks.tracking import mlflow_runs

        code.check(name)
        atomic.sweep(paths.ARTIFACTS)
        if launch.wanted(name):
            launch.several(name)
        module = "commands.base" if name == "base" else name  # `base` is no stage of dvc.yaml
        task = importlib.import_module(f"tasks.{module}")
        launch.end_with_launcher()
        if not machine.speaks():
            task.run(profile, mlflow_runs.StageRun())  # the first process keeps the record
            return
        with mlflow_runs.stage(name, profile) as tracked:
            task.run(profile, tracked)
        _leave_receipt()


def _leave_receipt() -> None:
    """Tell a flow that asked for it that the work is done, should DVC die before it says so."""
    from tasks.run import paths

    receipt = os.environ.get(paths.RECEIPT)
    if receipt:
        Path(receipt).touch()


def _run(name: str) -> None:
    with _clear_errors():
        importlib.import_module(f"tasks.{name}").run()


def _checked_profile() -> "Profile":
    """Return the profile in force, with the criteria it names proved readable.

    Raises:
        ParamsError: ``params/profile.yaml`` or the profile does not fit.
        CriteriaError: The criteria file does not fit.
    """
    from atelier.config.profile import read_profile, read_switch
    from atelier.criteria import tree
    from tasks.run import paths

    profile = read_profile(paths.profile(read_switch(paths.SWITCH)))
    tree.parse(paths.CRITERIA / profile.annotate.criteria)
    return profile


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Show an ``AtelierError`` as a paragraph; let SIGTERM unwind, so that runs end."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except AtelierError as error:
        from tasks.run import launch

        launch.let_the_first_speak()
        sys.stderr.write(f"Error: {error}\n")
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; the same command goes on from the last checkpoint.\n")
        raise typer.Exit(130) from None


def _stop(number: int, frame: object) -> NoReturn:
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    app(prog_name="python -m tasks")
