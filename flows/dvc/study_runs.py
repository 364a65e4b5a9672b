"""``python -m flows study [NAME]``: the grid of params/NAME.yaml, from tuning to docs/NAME.md.

An experiment is ``dvc repro evaluate`` with a few settings changed, in a workspace: a clone of
this repository at HEAD that shares DVC's cache, so that what one experiment made another takes
from the run cache (θ1 is trained once). All methods of one seed are one experiment, for the
stage ``cpo`` trains every entry of ``cpo.objectives`` on one encoding.

What an experiment found is kept under ``artifacts/NAME/``, under a key of its settings and of
the code, so that the same command goes on where it was stopped and repeats nothing.
"""

import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from atelier import atomic, images
from atelier.config.profile import Profile, read_study
from atelier.config.study import StudyParams
from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement
from atelier.errors import ArtifactError, ParamsError
from flows.dvc import runner, supervise
from tasks.run import git, paths
from tasks.tracking import mlflow_runs, outbox

_CODE = ("atelier", "tasks", "dvc.yaml", "params/criteria", "data.dvc", "base")
_SAID = 12  # last lines of a failed experiment that are shown
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")  # it becomes that of a folder and of a page
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """One run of the pipeline with changed settings.

    Attributes:
        name: Of its folder: what it varies, then the seed.
        changes: Settings of the profile, by dotted names.
    """

    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What an experiment left.

    Attributes:
        metrics: What evaluate measured, by painter.
        negatives: For each judge and painter, the bad criteria of each picture, in order.
        trained: What each objective's training said at its end, and its curve's columns.
    """

    metrics: Mapping[str, Mapping[str, float]]
    negatives: Mapping[str, Mapping[str, Sequence[Sequence[str]]]]
    trained: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Attempt:
    """An experiment that is to be had, one way or the other.

    Attributes:
        name: Of the experiment.
        known: Returns what it found when it was run before with all the same, or None.
        perform: Runs it, with these variables beside ours.
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
    """Have an experiment in this process, with the devices that it sees."""
    return attempt.known() or attempt.perform({})


def run(name: str, tell: Tell, have: Callable[[Attempt], Found] = directly) -> None:
    """Tune, run what was chosen, and write docs/NAME.md; goes on where it was stopped.

    Args:
        name: Of params/NAME.yaml.
        tell: Called with each line.
        have: Has an experiment: a flow makes a task of each.

    Raises:
        ParamsError: params/NAME.yaml, or the profile with a change, does not fit.
        ArtifactError: An experiment failed; says its last lines.
    """
    from flows.dvc import study_document

    if not _NAME.fullmatch(name):
        raise ParamsError(
            f"{name!r} is no name for a study: lower-case letters, digits and hyphens, of a "
            f"file {paths.PARAMS}/NAME.yaml"
        )
    file = paths.PARAMS / f"{name}.yaml"
    study = read_study(file)
    values = yaml.safe_load(paths.profile(study.profile).read_text(encoding="utf-8"))
    tuning = tuning_run(study)
    values = changed(values, study.settings)
    _check(file, values, [tuning, *final_runs(study, dict.fromkeys(study.methods, 1))])
    here = _Place(name, study, values, tell)
    with (
        runner.alone(here.kept / "lock", f"another run of {name}", tell),
        mlflow_runs.study(here.key, study.model_dump(mode="json"), tell) as tracked,
    ):
        tuned = have(here.attempt(tuning))
        chosen = {method: choose(method, study, tuned) for method in study.methods}
        tracked.tags({f"chosen.{method}": str(number) for method, number in chosen.items()})
        experiments = final_runs(study, chosen)
        profile = Profile.model_validate(values)
        results: dict[str, Found] = {}
        for place, one in enumerate(experiments, start=1):
            tell(f"study: {one.name} ({place} of {len(experiments)})")
            attempt = here.attempt(one)
            new = attempt.known() is None
            results[one.name] = have(attempt)
            if new or place == len(experiments):
                study_document.write(
                    name, study, chosen, tuned, results, profile, len(experiments)
                )
            tracked.metrics(_means(study, results), place)
            tell(f"study: step {place}/{len(experiments)} · {one.name}")
        tracked.file(study_document.document(name))
        here.deliver()
    tell(f"study: {study_document.document(name)} is written")


def _means(study: StudyParams, results: Mapping[str, Found]) -> dict[str, float]:
    """Return #A_neg and FID of each painter of the main comparison, over the seeds so far."""
    rows = [
        found.metrics for name, found in results.items() if name.rpartition("-")[0] == "methods"
    ]
    return {
        f"{measure}/{painter}": statistics.fmean(row[painter][measure] for row in rows)
        for measure in ("negatives", "fid")
        for painter in (rows[0] if rows else ())
        if all(row[painter].get(measure) is not None for row in rows)
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
        """Return an experiment as it is to be had here."""
        settings = changed(self.values, one.changes)
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
            "MLFLOW_TRACKING_URI": mlflow_runs.tracking_uri(),
            mlflow_runs.STUDY: self.key,
            mlflow_runs.PIPELINE: f"{self.key}/{experiment}",
        }

    def deliver(self) -> None:
        """Tell MLflow what the workspace's stages could not while it was away."""
        workspace = self.kept / "workspace"
        if any((workspace / outbox.FOLDER).glob("*")):
            words = [sys.executable, "-m", "cli", "registry"]
            more = {**os.environ, **self._told(""), "PYTHONPATH": str(workspace.absolute())}
            subprocess.run(words, cwd=workspace, env=more, capture_output=True, check=False)


def tuning_run(study: StudyParams) -> Experiment:
    """Return the run in which every configuration of every method paints for validation."""
    entries = {
        f"{name}-{number}": entry.model_dump(mode="json")
        for name, candidates in study.methods.items()
        for number, entry in enumerate(candidates, start=1)
    }
    return Experiment(
        "tuning",
        {
            **_objectives(entries),
            **_seeded(study.tuning_seed),
            "evaluate.part": "validation",
            "evaluate.prompts": study.tuning_prompts,
        },
    )


def choose(name: str, study: StudyParams, tuned: Found) -> int:
    """Return the configuration of a method, from 1, that did best on validation.

    The lowest #A_neg among those whose FID is no worse than the base's; where there is none,
    the lowest of all. Of equals, the first.
    """
    numbers = range(1, len(study.methods[name]) + 1)
    rows = {number: tuned.metrics[f"{name}-{number}"] for number in numbers}
    worst = tuned.metrics["base"].get("fid", float("inf"))
    sound = [number for number in numbers if rows[number].get("fid", 0.0) <= worst]
    return min(sound or numbers, key=lambda number: (rows[number]["negatives"], number))


def final_runs(study: StudyParams, chosen: Mapping[str, int]) -> list[Experiment]:
    """Return every run on the test part, the main comparison first."""
    methods = {
        name: study.methods[name][number - 1].model_dump(mode="json")
        for name, number in chosen.items()
    }
    own = methods[study.proposed]
    runs = [
        Experiment(f"methods-{seed}", {**_objectives(methods), **_seeded(seed)})
        for seed in study.seeds
    ]
    if study.guided is not None:
        guided = {name: methods[name] for name in study.guided.methods}
        guided["npo"] = study.guided.npo.model_dump(mode="json")
        for label, dropout in (
            ("guided", 0.0),
            ("guided-dropout", study.guided.caption_dropout),
        ):
            runs += [
                Experiment(
                    f"{label}-{seed}",
                    {
                        **_objectives(guided),
                        **_seeded(seed),
                        "evaluate.guidance": study.guided.guidance,
                        "cpo.caption_dropout": dropout,
                    },
                )
                for seed in study.seeds
            ]
    if study.steps is not None:
        shorter = {name: methods[name] for name in study.steps.methods}
        runs += [
            Experiment(
                f"steps{steps}-{seed}",
                {**_objectives(shorter), **_seeded(seed), "cpo.training.steps": steps},
            )
            for steps in study.steps.values
            for seed in study.seeds
        ]
    if study.sweep is not None:
        strengths = {
            name: {**own, study.sweep.field: value} for name, value in swept(study).items()
        }
        runs += [
            Experiment(f"sweep-{seed}", {**_objectives(strengths), **_seeded(seed)})
            for seed in study.seeds
        ]
    if study.variants:
        variants = {name: {**own, **change} for name, change in study.variants.items()}
        runs += [
            Experiment(f"variants-{seed}", {**_objectives(variants), **_seeded(seed)})
            for seed in study.seeds
        ]
    return runs + [
        Experiment(
            f"volume{round(100 * share)}-{seed}",
            {
                **_objectives({study.proposed: own}),
                **_seeded(seed),
                "split.train_share": share,
            },
        )
        for share in study.volumes
        for seed in study.seeds
    ]


def swept(study: StudyParams) -> dict[str, Any]:
    """Return the values of the sweep by the names of their objectives."""
    if study.sweep is None:
        return {}
    field = study.sweep.field.replace("_", "-")
    return {f"{field}-{value}".replace(".", "-"): value for value in study.sweep.values}


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile's values with the given ones by dotted names.

    Raises:
        ParamsError: A name is of no setting.
    """
    # By JSON: what YAML's anchors share is parted.
    copied: dict[str, Any] = json.loads(json.dumps(values))
    for name, value in changes.items():
        *above, last = name.split(".")
        section: Any = copied
        for key in above:
            section = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise ParamsError(f"the study's settings have {name!r}, which no profile has")
        section[last] = value
    return copied


def _objectives(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {"cpo.objectives": dict(entries), "cpo.featured": next(iter(entries))}


def _seeded(seed: int) -> dict[str, Any]:
    """θ1 keeps its own seed: it is the same teacher for every method and seed."""
    return {"cpo.training.seed": seed, "evaluate.seed": seed}


def _check(file: Path, values: Mapping[str, Any], experiments: Sequence[Experiment]) -> None:
    """Refuse a setting that does not fit before hours of work, not after."""
    from pydantic import ValidationError

    from atelier.config.messages import explain

    for one in experiments:
        try:
            Profile.model_validate(changed(values, one.changes))
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
    return Found(before["metrics"], before["negatives"], before["trained"])


def _keep(file: Path, key: str, one: Experiment, found: Found) -> None:
    content = {
        "key": key,
        "settings": dict(one.changes),
        "metrics": found.metrics,
        "negatives": found.negatives,
        "trained": found.trained,
    }
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
    for folder in (paths.DATA, paths.BASE / profile):
        _share(folder, place / folder)
    atomic.write(
        place / paths.profile(profile),
        yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True),
    )
    atomic.write(place / paths.SWITCH, f"profile: {profile}\n")
    return place


def _share(source: Path, target: Path) -> None:
    """Link a folder's files into the workspace, unless they are there."""
    if not source.is_dir():
        raise ArtifactError(
            f"{source} is absent; `python -m tasks data` draws the starter paintings, and a "
            "base is trained by `python -m tasks base` or downloaded (base/*/README.md)"
        )
    for file in (path for path in source.rglob("*") if path.is_file()):
        there = target / file.relative_to(source)
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, there)


def _reproduce(workspace: Path, name: str, more: Mapping[str, str], tell: Tell) -> None:
    """Run the pipeline there, supervised: it ends with us."""
    words = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "evaluate"]
    here = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(workspace.absolute()),
        "PYTHONUNBUFFERED": "1",
        **more,
    }
    process = subprocess.Popen(
        supervise.command(words, timeout_seconds=None, silence_seconds=None),
        cwd=workspace,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    last: list[str] = []
    with process, process.stdin, process.stdout:
        for line in process.stdout:
            last = [*last, line.rstrip("\n")][-_SAID:]
            tell(f"{name}: {line.rstrip()}")
    if process.returncode:
        said = "\n".join(f"  {line}" for line in last)
        raise ArtifactError(
            f"experiment {name} ended with exit code {process.returncode}; it said last:\n"
            f"{said}\nThe same command goes on from here"
        )


def collect(workspace: Path) -> Found:
    """Read what an experiment left in its workspace."""
    evaluated = workspace / paths.EVALUATE
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))
    said = {
        painter: annotations.read(evaluated / "judgements" / f"{painter}.jsonl", Judgement)
        for painter in metrics
    }
    judges = dict.fromkeys(row.annotator for rows in said.values() for row in rows)
    negatives: dict[str, dict[str, list[list[str]]]] = {judge: {} for judge in judges}
    for painter, rows in said.items():
        files = sorted((evaluated / "images" / painter).glob("*.png"))
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
    return Found(metrics, negatives, trained)


def _curve(file: Path) -> dict[str, list[float]]:
    """The columns of a training's curve that the study shows."""
    heading, *lines = file.read_text(encoding="utf-8").splitlines()
    names = heading.split("\t")
    columns: dict[str, list[float]] = {}
    for name in ("step", "gradient_norm", "drift"):
        cells = [line.split("\t")[names.index(name)] for line in lines]
        columns[name] = [float(cell) for cell in cells if cell]
    return columns
