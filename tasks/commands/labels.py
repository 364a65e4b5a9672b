"""``atelier labels``: judgements by people: export, read, compare."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from atelier import atomic
from atelier.annotators import human, label_studio
from atelier.config.profile import Profile
from atelier.criteria import agreement, annotations
from atelier.criteria.agreement import Agreement
from atelier.criteria.annotations import Image, Judgement
from atelier.criteria.tree import Pole, parse
from atelier.errors import AnnotationError, ArtifactError
from tasks.run import paths
from tasks.run.console import console, say

INTERFACE = "interface.xml"
TASKS = "tasks.json"


def export(profile: Profile, folder: Path, prefix: str) -> None:
    """Write the labelling interface and the tasks of all pictures that annotate accepted.

    Raises:
        ArtifactError: annotate has not run.
    """
    tree = parse(paths.CRITERIA / profile.annotate.criteria)
    pictures = _pictures()
    atomic.write(folder / INTERFACE, label_studio.interface(tree))
    atomic.write(folder / TASKS, label_studio.tasks(pictures, prefix))
    say(f"{folder}: {INTERFACE} and {TASKS}, {len(pictures)} pictures")


def read(profile: Profile, file: Path, out: Path, annotator: str | None) -> None:
    """Turn a table or an export of labels into JSONL that ``annotate.recorded`` may name.

    Raises:
        ArtifactError: annotate has not run.
        AnnotationError: The labels do not fit; every mistake.
    """
    tree = parse(paths.CRITERIA / profile.annotate.criteria)
    images = human.known(_pictures())
    if file.suffix.lower() == ".json":
        labels = label_studio.read(file, tree, images)
    else:
        labels = human.read_csv(file, tree, images, annotator)
    atomic.write(out, annotations.lines(labels.judgements))
    people = {one.annotator for one in labels.judgements}
    say(f"{out}: {len(labels.judgements)} judgements by {', '.join(sorted(people))}")
    for sentence in labels.passed_over:
        say(f"{file}: {sentence}")


def compare(files: Sequence[Path], leaves: bool) -> None:
    """Print how far any two annotators of some files agree.

    Raises:
        AnnotationError: There are not two, or a line does not fit.
    """
    for file in files:
        _refuse_former(file)
    judgements = [one for file in files for one in annotations.read(file, Judgement)]
    compared = agreement.pairs(judgements)
    if not compared:
        raise AnnotationError(
            f"{', '.join(map(str, files))} should hold judgements by at least two annotators"
        )
    for (first, second), by_leaf in compared.items():
        rows = by_leaf if leaves else agreement.by_root(by_leaf)
        console().print(_table(f"{first} and {second}", rows))


def _refuse_former(file: Path) -> None:
    """Name the new file to those who ask for the one of an earlier version."""
    if file.name == "voices.jsonl" and not file.exists():
        raise ArtifactError(f"{file} is called {file.with_name('raw_judgements.jsonl')} now")


def count() -> None:
    """Print what annotate counted: who spoke, what counts, and the poles of each criterion.

    Raises:
        ArtifactError: annotate has not run.
    """
    path = paths.ANNOTATE / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is absent; run `dvc repro annotate`") from None
    say(f"{summary['images']} pictures, {summary['quarantined']} set aside")
    for name, judgements in summary["annotators"].items():
        say(f"{name}: {judgements} judgements")
    for name, answers in summary.get("answered_by", {}).items():
        say(f"the server answered as {name}: {answers} times")
    settled = (f"{how.replace('_', ' ')} {n}" for how, n in summary["adjudication"].items())
    say(f"{summary['judgements']} count: {', '.join(settled)}")
    table = Table()
    table.add_column("criterion", no_wrap=True)
    for column in ("good pole", "bad pole", "silent"):
        table.add_column(column, justify="right")
    for criterion, one in summary["criteria"].items():
        counts = (str(one[name]) for name in ("positive", "negative", "abstained"))
        table.add_row(escape(criterion), *counts)
    console().print(table)


def _pictures() -> list[Image]:
    return annotations.read(paths.ANNOTATE / "images.jsonl", Image)


def _table(title: str, rows: Mapping[str, Agreement]) -> Table:
    table = Table(title=escape(title))
    table.add_column("criteria", no_wrap=True)
    for column in ("both spoke", "agree", "kappa", "F1 good pole", "F1 bad pole"):
        table.add_column(column, justify="right")
    for name, one in rows.items():
        table.add_row(
            escape(name),
            str(one.both),
            _within(one.share, one.interval),
            _within(one.kappa, one.kappa_interval),
            *(_f1(one, pole) for pole in ("positive", "negative")),
        )
    return table


def _f1(one: Agreement, pole: Pole) -> str:
    return _within(one.f1(pole), one.f1_interval(pole))


def _within(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return "–" if value != value else f"{value:.2f} ({low:.2f} to {high:.2f})"
