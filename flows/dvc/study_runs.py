"""Experiments of a study, run through DVC: ``atelier study [NAME]``.

An experiment is ``dvc repro`` with a few settings changed, in a workspace: a clone of
this repository at HEAD that shares DVC's cache, so that what one experiment made another takes
from the run cache (θ1 is trained once). All methods of one seed are one experiment.

What an experiment found is kept under ``artifacts/NAME/``, under a key of its settings and of
the code, so that the same command goes on where it was stopped and repeats nothing.
"""

import dataclasses
import filecmp
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from atelier import atomic, images
from atelier.config.profile import Profile, read_study
from atelier.config.study import StudyParams
from atelier.criteria import tree
from atelier.errors import ArtifactError, ParamsError
from atelier.reports.study import design, figures, report
from atelier.reports.study.design import Experiment
from atelier.reports.study.results import Found, Results
from atelier.starter import feature_network
from flows.dvc import runner
from flows.dvc.overrides import changed
from tasks.evaluation import evaluated
from tasks.run import git, paths
from tasks.tracking import connection, mlflow_runs, sync

_CODE = ("atelier", "tasks", "dvc.yaml", "params/criteria", "data.dvc", "base", "loras")
_CURVE = ["step", "gradient_norm", "drift"]
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")  # it becomes that of a folder and of a page
Tell = Callable[[str], None]
DOCUMENTS = Path("docs")
README = Path("README.md")


@dataclass(frozen=True)
class Attempt:
    """An experiment to run, unless its result is known.

    Attributes:
        name: Of the experiment.
        known: Returns what it found when it was run before with the same settings and code.
        perform: Runs it, with these variables added to ours.
    """

    name: str
    known: Callable[[], Found | None]
    perform: Callable[[Mapping[str, str]], Found]


def names() -> list[str]:
    """Return the names of the studies in params/: those of files with methods to compare."""
    texts = {
        file.stem: file.read_text(encoding="utf-8") for file in paths.PARAMS.glob("*.yaml")
    }
    return sorted(
        name for name, text in texts.items() if re.search(r"^methods:", text, re.MULTILINE)
    )


def directly(attempt: Attempt) -> Found:
    """Run an experiment in this process, with the devices that it sees, unless it is known."""
    return attempt.known() or attempt.perform({})


def run(name: str, tell: Tell, have: Callable[[Attempt], Found] = directly) -> None:
    """Tune, run what was chosen, and write docs/NAME.md; goes on where it was stopped.

    Args:
        name: Of params/NAME.yaml.
        tell: Called with each line.
        have: Returns an experiment's result: a flow makes a task of each.

    Raises:
        ParamsError: params/NAME.yaml, or the profile with a change, does not fit.
        ArtifactError: An experiment failed; says its last lines.
    """
    if not _NAME.fullmatch(name):
        raise ParamsError(
            f"{name!r} cannot be a study's name: a name has lower-case letters, digits and "
            f"hyphens, as its file {paths.PARAMS}/NAME.yaml"
        )
    file = paths.PARAMS / f"{name}.yaml"
    study = read_study(file)
    values = yaml.safe_load(paths.profile(study.profile).read_text(encoding="utf-8"))
    tuning = design.tuning_run(study)
    values = changed(values, study.settings, f"{file}, settings")
    _check(file, values, [tuning, *design.final_runs(study, dict.fromkeys(study.methods, 1))])
    here = _Place(name, study, values, tell)
    with (
        runner.alone(here.kept / "lock", f"another run of {name}", tell),
        mlflow_runs.study(here.key, study.model_dump(mode="json"), tell) as tracked,
    ):
        tuned = have(here.attempt(tuning))
        chosen = {method: design.choose(method, study, tuned) for method in study.methods}
        tracked.tags({f"chosen.{method}": str(number) for method, number in chosen.items()})
        experiments = design.final_runs(study, chosen)
        profile = Profile.model_validate(values)
        results: dict[str, Found] = {}
        for place, one in enumerate(experiments, start=1):
            tell(f"study: {one.name} ({place} of {len(experiments)})")
            attempt = here.attempt(one)
            new = attempt.known() is None
            results[one.name] = have(attempt)
            if new or place == len(experiments):
                write(name, study, chosen, tuned, results, profile, len(experiments))
            tracked.metrics(_means(results), place)
            tell(f"study: step {place}/{len(experiments)} · {one.name}")
        tracked.file(document(name))
        here.deliver()
    tell(f"study: {document(name)} is written")


def document(name: str) -> Path:
    """Return where a study is written up; its figures lie in the folder of the same name."""
    return DOCUMENTS / f"{name}.md"


def write(
    name: str,
    study: StudyParams,
    chosen: Mapping[str, int],
    tuned: Found,
    found: Mapping[str, Found],
    profile: Profile,
    planned: int,
) -> None:
    """Write docs/NAME.md and its figures from what there is, and the README's table."""
    results = Results(found, len(study.seeds), feature_network.NAME)
    folder = DOCUMENTS / name
    reading = folder / "reading.md"
    page = report.render(
        name, study, chosen, tuned, results, profile,
        planned=planned,
        commit=git.run("rev-parse", "--short", "HEAD"),
        reading=reading.read_text(encoding="utf-8") if reading.is_file() else "",
    )  # fmt: skip
    figures.write(folder, study, results)
    atomic.write(document(name), page)
    if name == "study" and README.is_file():
        text = README.read_text(encoding="utf-8")
        atomic.write(README, report.shown_in(text, study, results))


def _means(found: Mapping[str, Found]) -> dict[str, float]:
    """Return #A_neg and FID of each painter of the main comparison, over the seeds so far."""
    runs = [
        pd.DataFrame(one.metrics).T.astype(float)
        for name, one in found.items()
        if name.rpartition("-")[0] == design.MAIN
    ]
    means = pd.concat(runs).groupby(level=0).mean()
    return {
        f"{measure}/{painter}": mean
        for measure in ("negatives", "fid")
        for painter, mean in means.get(measure, pd.Series(dtype=float)).items()
    }


@dataclass(frozen=True)
class _Place:
    """Where a study's experiments are run, and with what."""

    name: str
    study: StudyParams
    values: Mapping[str, Any]
    tell: Tell

    @property
    def kept(self) -> Path:
        return paths.ARTIFACTS / self.name

    @property
    def key(self) -> str:
        """The study's in MLflow: other settings are another run."""
        settings = hashlib.sha256(self.study.model_dump_json().encode())
        return f"{self.name}/{settings.hexdigest()[:12]}"

    def attempt(self, one: Experiment) -> Attempt:
        """Return an experiment as it is run here."""
        settings = changed(self.values, one.changes, f"{paths.PARAMS}/{self.name}.yaml")
        file = self.kept / one.name / "found.json"
        key = _key(settings)

        def known() -> Found | None:
            found = _known(file, key)
            if found is not None:
                self.tell(f"study: {one.name} was run before")
            return found

        def perform(more: Mapping[str, str]) -> Found:
            workspace = _workspace(self.kept / "workspace", self.study.profile, settings)
            _reproduce(workspace, one.name, {**self._told(one.name), **more}, self.tell)
            found = collect(workspace)
            _keep(file, key, one, found)
            return found

        return Attempt(one.name, known, perform)

    def _told(self, experiment: str) -> dict[str, str]:
        """Return variables by which the stages log to our MLflow, under the study's run."""
        return {
            "MLFLOW_TRACKING_URI": connection.tracking_uri(),
            mlflow_runs.STUDY: self.key,
            mlflow_runs.PIPELINE: f"{self.key}/{experiment}",
        }

    def deliver(self) -> None:
        """Tell MLflow what the workspace's stages could not while it was away."""
        workspace = self.kept / "workspace"
        if any((workspace / sync.FOLDER).glob("*.json")):
            words = [sys.executable, "-m", "cli", "registry"]
            more = {**os.environ, **self._told(""), "PYTHONPATH": str(workspace.absolute())}
            subprocess.run(words, cwd=workspace, env=more, capture_output=True, check=False)


def _check(file: Path, values: Mapping[str, Any], experiments: Sequence[Experiment]) -> None:
    """Refuse a setting that does not fit before hours of work, not after."""
    from pydantic import ValidationError

    from atelier.config.messages import explain

    for one in experiments:
        try:
            Profile.model_validate(changed(values, one.changes, str(file)))
        except ValidationError as error:
            raise ParamsError(
                f"{file}, experiment {one.name}, does not fit:\n{explain(error)}"
            ) from None


def _known(file: Path, key: str) -> Found | None:
    """Return what an experiment found, if it was run with all the same."""
    if not file.is_file():
        return None
    before = json.loads(file.read_text(encoding="utf-8"))
    if before["key"] != key:
        return None
    return Found(**{field.name: before[field.name] for field in dataclasses.fields(Found)})


def _keep(file: Path, key: str, one: Experiment, found: Found) -> None:
    content = {"key": key, "settings": dict(one.changes), **dataclasses.asdict(found)}
    atomic.write(file, json.dumps(content) + "\n")


def _key(settings: Mapping[str, Any]) -> str:
    """Name what a result depends on: settings, and the code and inputs at HEAD."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    words = ["git", "ls-tree", "HEAD", "--", *_CODE]
    digest.update(subprocess.run(words, capture_output=True, check=True).stdout)
    return digest.hexdigest()


def _workspace(place: Path, profile: str, settings: Mapping[str, Any]) -> Path:
    """A clone at HEAD that shares DVC's cache and the paintings, with these settings."""
    head = git.run("rev-parse", "HEAD")
    if not (place / ".git").is_dir():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        git.run("clone", "--quiet", "--shared", ".", str(place))
    git.run("-C", str(place), "fetch", "--quiet", "origin", "HEAD")
    git.run("-C", str(place), "checkout", "--quiet", "--force", "--detach", head)
    cache = Path(".dvc/cache").absolute()
    atomic.write(place / ".dvc/config.local", f"[cache]\n    dir = {cache}\n")
    for folder in (paths.DATA, paths.BASE / profile, paths.LORAS):
        _share(folder, place / folder)
    atomic.write(
        place / paths.profile(profile),
        yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True),
    )
    atomic.write(place / paths.SWITCH, f"profile: {profile}\n")
    return place


def _share(source: Path, target: Path) -> None:
    """Let the workspace have a folder's files of now, as links, and no others."""
    if not source.is_dir():
        raise ArtifactError(
            f"{source} is absent; `atelier data` draws the starter paintings, and a "
            "base is trained by `atelier base` or downloaded; `dvc pull` fetches what is pinned"
        )
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for file in [path for path in target.rglob("*") if path.is_file()]:
        if file.relative_to(target) not in files:
            file.unlink()
    for file in sorted(files):
        there = target / file
        if there.exists() and not filecmp.cmp(there, source / file):
            there.unlink()
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            os.link(source / file, there)


def _reproduce(workspace: Path, name: str, more: Mapping[str, str], tell: Tell) -> None:
    """Run the pipeline there, supervised: it ends with us."""
    try:
        runner.command(
            "report",
            runner.dvc("repro", "report"),
            None,
            more={"PYTHONPATH": str(workspace.absolute()), **more},
            tell=lambda line: tell(f"{name}: {line}"),
            folder=workspace,
        )
    except runner.StageFailedError as error:
        raise ArtifactError(
            f"experiment {name}: {error}\nThe same command goes on from here"
        ) from None


def collect(workspace: Path) -> Found:
    """Read what an experiment left in its workspace."""
    metrics = json.loads((workspace / paths.SUITES).read_text(encoding="utf-8"))
    said = {
        painter: evaluated.judgements(painter, workspace / paths.EVALUATE)
        for painter in metrics
    }
    judges = dict.fromkeys(row.annotator for rows in said.values() for row in rows)
    negatives: dict[str, dict[str, list[list[str]]]] = {judge: {} for judge in judges}
    for painter, rows in said.items():
        files = sorted((workspace / paths.GENERATE / painter).glob("*.png"))
        place = {images.sha256(file): number for number, file in enumerate(files)}
        for judge in judges:
            bad: list[list[str]] = [[] for _ in files]
            for row in rows:
                if row.annotator == judge and row.pole == "negative":
                    bad[place[row.image]].append(row.criterion)
            negatives[judge][painter] = bad
    trained = {
        folder.name: {
            **json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
            "curve": _curve(folder / "curve.tsv"),
        }
        for folder in sorted((workspace / paths.CPO).iterdir())
    }
    prompts = pd.read_csv(
        workspace / paths.PLOTS / "prompts.csv", keep_default_na=False, dtype=str
    )
    criteria = list(tree.parse(workspace / paths.JUDGED_BY).leaves())
    return Found(metrics, prompts["caption"].tolist(), criteria, negatives, trained)


def _curve(file: Path) -> dict[str, list[float]]:
    """The columns of a training's curve that the study shows."""
    curve = pd.read_csv(file, sep="\t", usecols=_CURVE, dtype=float)
    return {name: curve[name].dropna().tolist() for name in _CURVE}
