"""Experiments of a study, run through DVC: ``atelier study [NAME]``.

An experiment is ``dvc repro`` with a few settings changed, in a workspace: a clone of
this repository at HEAD that shares DVC's cache, so that what one experiment made another takes
from the run cache (θ1 is trained once). All methods of one seed are one experiment.

What an experiment found is kept under ``artifacts/NAME/``, under a key of its settings and of
the code, so that the same command goes on where it was stopped and repeats nothing.
"""

import contextlib
import filecmp
import hashlib
import io
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

import numpy as np
import pandas as pd
import yaml

from atelier import atomic, images
from atelier.config.profile import Profile, read_in_force, read_study
from atelier.config.study import StudyParams
from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ParamsError
from atelier.metrics.comparison import Measured
from atelier.metrics.fid import Features
from atelier.reports.study import design, figures, report
from atelier.reports.study.design import Entrant, Experiment
from atelier.reports.study.results import Found, Results
from atelier.starter import feature_network
from flows.dvc import numbered_captions, runner
from flows.dvc.overrides import changed
from tasks.code import Packages
from tasks.evaluation import captions, evaluated
from tasks.run import git, paths, resume
from tasks.tracking import connection, mlflow_runs, sync

_INPUTS = ("params/criteria", "data.dvc", "base/starter/features")
_STAGES = ("annotate", "split", "sft", "cpo", "generate", "evaluate")
_WRITTEN = ("metrics", "captions", "criteria", "negatives", "trained", "clean")  # as JSON
_REAL = "paintings"  # their array beside those of painters
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
    """Run every strength, choose, repeat what was chosen, and write docs/NAME.md.

    It goes on where it was stopped.

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
    values = changed(values, study.settings, f"{file}, settings")
    _refuse_unmeasured(file, values)
    steps = {
        f"{stage}.training.steps": values[stage]["training"]["steps"]
        for stage in ("sft", "cpo")
    }
    first = design.first_runs(study)
    likely = {one: next(iter(design.trainings(study, one))) for one in design.entrants(study)}
    later = design.later_runs(study, likely, steps)
    _check(file, values, [*first, *later])
    profile = Profile.model_validate(values)
    results: dict[str, Found] = {}
    kept = paths.ARTIFACTS / name
    with contextlib.ExitStack() as at:
        at.enter_context(runner.alone(kept / "lock", f"another run of {name}", tell))
        workspace = _clone(kept / "workspace")
        here = _Place(name, study, values, tell, workspace, Packages(workspace))
        tracked = at.enter_context(
            mlflow_runs.study(here.key, study.model_dump(mode="json"), tell)
        )

        def all_of(experiments: Sequence[Experiment]) -> None:
            for one in experiments:
                every = len(first) + len(later)
                tell(f"study: {one.name} ({len(results) + 1} of {every})")
                results[one.name] = have(here.attempt(one))
                tracked.metrics(_means(results[one.name], one.name), len(results))
                tell(f"study: step {len(results)}/{every} · {one.name}")

        all_of(first)
        chosen = {one: design.choose(study, one, results) for one in likely}
        tracked.tags(
            {f"chosen.{one.method}.{one.sampled}": name for one, name in chosen.items()}
        )
        later = design.later_runs(study, chosen, steps)
        all_of(later)
        write(name, study, chosen, results, profile)
        tracked.file(document(name))
        here.deliver()
    tell(f"study: {document(name)} is written")


def document(name: str) -> Path:
    """Return where a study is written up; its figures lie in the folder of the same name."""
    return DOCUMENTS / f"{name}.md"


def write(
    name: str,
    study: StudyParams,
    chosen: Mapping[Entrant, str],
    found: Mapping[str, Found],
    profile: Profile,
) -> None:
    """Write docs/NAME.md and its figures."""
    results = Results(found, feature_network.NAME)
    folder = DOCUMENTS / name
    reading = folder / "reading.md"
    page = report.render(
        name, study, chosen, results, profile,
        commit=git.run("rev-parse", "--short", "HEAD"),
        reading=reading.read_text(encoding="utf-8") if reading.is_file() else "",
    )  # fmt: skip
    figures.write(folder, study, chosen, results, paths.ARTIFACTS / name)
    atomic.write(document(name), page)


def _means(found: Found, name: str) -> dict[str, float]:
    """Return #A_neg and FID of an experiment's painters, for MLflow."""
    return {
        f"{name}/{measure}/{painter}": row[measure]
        for painter, row in found.metrics.items()
        for measure in ("negatives", "fid")
    }


@dataclass(frozen=True)
class _Place:
    """Where a study's experiments are run, and with what."""

    name: str
    study: StudyParams
    values: Mapping[str, Any]
    tell: Tell
    workspace: Path
    packages: Packages  # the workspace's code

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
        key = self._key_of(settings)

        def known() -> Found | None:
            found = _known(file, key)
            if found is not None:
                self.tell(f"study: {one.name} was run before")
            return found

        def perform(more: Mapping[str, str]) -> Found:
            _prepare(self.workspace, self.study, settings)
            _reproduce(self.workspace, one.name, {**self._told(one.name), **more}, self.tell)
            found = collect(self.workspace)
            _keep(file, key, one, found)
            _keep_pictures(self.workspace, file.parent)
            return found

        return Attempt(one.name, known, perform)

    def _key_of(self, settings: Mapping[str, Any]) -> str:
        """Name what a result depends on: settings, inputs, and what the stages' code does."""
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        given = [Path(self.study.data)] if self.study.data else []  # else data.dvc pins it
        digest.update(resume.key(paths.BASE / self.study.profile, paths.LORAS, *given).encode())
        digest.update(f"{self.study.numbered}".encode())
        words = ["git", "ls-tree", "HEAD", "--", *_INPUTS]
        digest.update(subprocess.run(words, capture_output=True, check=True).stdout)
        kinds = {str(one["objective"]) for one in settings["cpo"]["objectives"].values()}
        for stage in _STAGES:
            made_by = self.packages.of_stage(stage, kinds)
            digest.update(json.dumps(made_by, sort_keys=True).encode())
        return digest.hexdigest()

    def _told(self, experiment: str) -> dict[str, str]:
        """Return variables by which the stages log to our MLflow, under the study's run."""
        return {
            "MLFLOW_TRACKING_URI": connection.tracking_uri(),
            mlflow_runs.STUDY: self.key,
            mlflow_runs.PIPELINE: f"{self.key}/{experiment}",
        }

    def deliver(self) -> None:
        """Tell MLflow what the workspace's stages could not while it was away."""
        if any((self.workspace / sync.FOLDER).glob("*.json")):
            words = [sys.executable, "-m", "cli", "registry"]
            more = {
                **os.environ, **self._told(""), "PYTHONPATH": str(self.workspace.absolute())
            }  # fmt: skip
            subprocess.run(
                words, cwd=self.workspace, env=more, capture_output=True, check=False
            )


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


def _refuse_unmeasured(file: Path, values: Mapping[str, Any]) -> None:
    """Refuse a profile that measures less than a study compares.

    Raises:
        ParamsError: It does.
    """
    missing = sorted({"fid", "vendi"} - set(values["evaluate"]["metrics"]))
    if missing:
        raise ParamsError(
            f"{file}: a study compares FID and diversity, and evaluate.metrics of the profile "
            f"does not name {', '.join(missing)}; add them, or set evaluate.metrics in settings"
        )


def _known(file: Path, key: str) -> Found | None:
    """Return what an experiment found, if it was run with all the same."""
    arrays = file.with_suffix(".npz")
    if not file.is_file() or not arrays.is_file():
        return None
    before = json.loads(file.read_text(encoding="utf-8"))
    if before["key"] != key:
        return None
    with np.load(arrays, allow_pickle=False) as stored:
        features = {name: stored[name] for name in stored.files if name != _REAL}
        real = stored[_REAL]
    return Found(**{name: before[name] for name in _WRITTEN}, features=features, real=real)


def _keep(file: Path, key: str, one: Experiment, found: Found) -> None:
    arrays = io.BytesIO()
    np.savez_compressed(arrays, allow_pickle=False, **{_REAL: found.real, **found.features})
    atomic.write(file.with_suffix(".npz"), arrays.getvalue())
    content = {name: getattr(found, name) for name in _WRITTEN}
    content |= {"key": key, "settings": dict(one.changes)}
    atomic.write(file, json.dumps(content) + "\n")


def _keep_pictures(workspace: Path, folder: Path) -> None:
    """Keep the first pictures of each painter, which the document's grid shows."""
    for painter in sorted((workspace / paths.GENERATE).iterdir()):
        for picture in sorted(painter.glob("*.png"))[: figures.COLUMNS]:
            atomic.write(folder / painter.name / picture.name, picture.read_bytes())


def _clone(place: Path) -> Path:
    """Return a clone at HEAD that shares DVC's cache."""
    head = git.run("rev-parse", "HEAD")
    if not (place / ".git").is_dir():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        git.run("clone", "--quiet", "--shared", ".", str(place))
    # What was made there last: from it the stages take what they can keep.
    lock = place / paths.DVC_LOCK
    made = lock.read_bytes() if lock.is_file() else None
    git.run("-C", str(place), "fetch", "--quiet", "origin", "HEAD")
    git.run("-C", str(place), "checkout", "--quiet", "--force", "--detach", head)
    if made is not None:
        atomic.write(lock, made)
    cache = Path(".dvc/cache").absolute()
    atomic.write(place / ".dvc/config.local", f"[cache]\n    dir = {cache}\n")
    return place


def _prepare(place: Path, study: StudyParams, settings: Mapping[str, Any]) -> None:
    """Put the pictures, the base and these settings into the workspace."""
    _share(paths.BASE / study.profile, place / paths.BASE / study.profile)
    _share(Path(study.data) if study.data else paths.DATA, place / paths.DATA)
    _share(paths.LORAS, place / paths.LORAS)
    values: dict[str, Any] = json.loads(json.dumps(settings))
    if study.numbered:
        values["annotate"]["captions"] = numbered_captions.write(
            place / paths.DATA, values["annotate"]["captions"]
        )
    atomic.write(
        place / paths.profile(study.profile),
        yaml.safe_dump(values, sort_keys=False, allow_unicode=True),
    )
    atomic.write(place / paths.SWITCH, f"profile: {study.profile}\n")


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
    """Run the pipeline there up to its measures, supervised: it ends with us."""
    try:
        runner.command(
            "evaluate",
            runner.dvc("repro", "evaluate"),
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
    evaluate = workspace / paths.EVALUATE
    measured = evaluated.read(evaluate).measured
    said = {painter: evaluated.judgements(painter, evaluate) for painter in measured}
    judges = dict.fromkeys(row.annotator for rows in said.values() for row in rows)
    negatives: dict[str, dict[str, list[list[str]]]] = {judge: {} for judge in judges}
    for painter, rows in said.items():
        files = sorted((workspace / paths.GENERATE / painter).glob("*.png"))
        places: dict[str, list[int]] = {}
        for number, file in enumerate(files):
            places.setdefault(images.sha256(file), []).append(number)
        for judge in judges:
            bad: list[list[str]] = [[] for _ in files]
            for row in rows:
                if row.annotator == judge and row.pole == "negative":
                    for place in places[row.image]:
                        bad[place].append(row.criterion)
            negatives[judge][painter] = bad
    own = next(judge for judge in judges if judge != feature_network.NAME)
    trained = {
        folder.name: {
            **json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
            "curve": _curve(folder / "curve.tsv"),
        }
        for folder in sorted((workspace / paths.CPO).iterdir())
    }
    profile = read_in_force(workspace / paths.PARAMS)
    test = annotations.read(workspace / paths.SPLIT / f"{profile.generate.part}.jsonl", Record)
    painted = captions.painted(test, profile.generate.prompts)
    return Found(
        metrics={
            painter: _measures(one, negatives[own][painter])
            for painter, one in measured.items()
        },
        captions=[record.caption for record in painted],
        criteria=list(tree.parse(workspace / paths.JUDGED_BY).leaves()),
        negatives=negatives,
        trained=trained,
        clean=[not record.negative for record in test],
        features={painter: _features(evaluate / "features" / painter) for painter in measured},
        real=_features(evaluate / "paintings" / "test"),
    )


def _measures(measured: Measured, bad: Sequence[Sequence[str]]) -> dict[str, float]:
    """The numbers of one painter that tables show."""
    row = {"negatives": sum(map(len, bad)) / len(bad), "clipped": measured.clipped}
    if measured.fid is not None:
        row |= {"fid": measured.fid.fid, "kid": measured.fid.kid}
    if measured.diversity is not None:
        row["vendi"] = measured.diversity
    return row


def _features(folder: Path) -> Features:
    features: Features = np.load(folder / "features.npy", allow_pickle=False)
    return features


def _curve(file: Path) -> dict[str, list[float]]:
    """The columns of a training's curve that the study shows."""
    curve = pd.read_csv(file, sep="\t", usecols=_CURVE, dtype=float)
    return {name: curve[name].dropna().tolist() for name in _CURVE}
