"""What ``evaluate`` leaves behind: metrics for DVC and MLflow, tables, a grid, the report."""

import csv
import importlib.metadata
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from atelier import atomic, images
from atelier.config.profile import Profile, read_switch
from atelier.criteria import annotations
from atelier.criteria.annotations import Quarantined, Record
from atelier.criteria.tree import Tree
from atelier.metrics import suite
from atelier.metrics.about import Entry
from atelier.metrics.comparison import Painted, Result, Score
from atelier.metrics.statistics import Interval
from atelier.models import adapters
from atelier.reports import evaluation_page, image_grids, model_card
from atelier.reports.charts import Points
from atelier.reports.evaluation_data import Coverage, DataSheet, Page, Painter, Pair, Part
from survey import results as surveyed
from survey.method import page as survey
from tasks.evaluation import candidates
from tasks.evaluation.candidates import Candidate
from tasks.run import paths
from tasks.tracking import mlflow_runs, registry
from tasks.tracking.mlflow_runs import StageRun

METRICS = paths.EVALUATE / "metrics.json"
PLOTS = paths.EVALUATE / "plots"
REPORT = paths.EVALUATE / "report.html"
_VERSIONS = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "scipy",
    "clean-fid",
    "open_clip_torch",
    "image-reward",
    "pillow",
)


@dataclass(frozen=True)
class Outcome:
    """Everything that evaluate found.

    Attributes:
        compared: The painters, the base first.
        painted: Pictures and findings of each.
        results: What was measured of each.
        captions: What was painted.
        tree: The criteria.
        entries: The metrics of the profile, measured or not.
        annotator: Who judged.
        second: The independent judge, if there is one.
        extractor: Whose features FID and its kin compare; None if it is not here.
        unseen: Vendi score of as many test paintings, and how many; None if not measured.
        pairs: By painter, its pictures that come closest to a training painting.
    """

    compared: Sequence[Candidate]
    painted: Mapping[str, Painted]
    results: Mapping[str, Result]
    captions: Sequence[str]
    tree: Tree
    entries: Mapping[str, Entry]
    annotator: str
    second: str | None
    extractor: str | None
    unseen: tuple[float, int] | None
    pairs: Mapping[str, Sequence[Pair]]


def write(outcome: Outcome, profile: Profile, tracked: StageRun) -> None:
    """Write metrics, plots, grid and report, and hand them to MLflow."""
    curves = {one.name: _curve(one) for one in outcome.compared}
    metrics = {one.name: _headline(outcome.results[one.name]) for one in outcome.compared}
    for name, curve in curves.items():
        if "drift" in curve:
            metrics[name]["drift"] = curve["drift"][-1][1]
    atomic.write(METRICS, json.dumps(metrics, indent=2) + "\n")
    for name, rows in _tables(outcome).items():
        atomic.write(PLOTS / f"{name}.csv", _csv(rows))
    atomic.write(paths.SUITE, json.dumps(_suite(outcome), indent=2, ensure_ascii=False) + "\n")
    grid = picture_grid(outcome, profile.report.grid_prompts)
    atomic.write(PLOTS / "grid.png", images.png(np.asarray(grid)))
    page = _page(outcome, curves, profile)
    atomic.write(REPORT, evaluation_page.render(page))
    for subject in _subjects(outcome, profile):
        text = model_card.render(page, subject)
        atomic.write(paths.CARDS / subject.name / "README.md", text)
    tracked.metrics(
        {f"{name}/{key}": value for name, row in metrics.items() for key, value in row.items()}
    )
    tracked.picture("grid", grid)
    tracked.file(REPORT)
    tracked.file(paths.SUITE)
    tracked.file(paths.CARDS)
    tracked.tags(
        {
            f"unavailable.{name}": entry.unavailable
            for name, entry in outcome.entries.items()
            if entry.unavailable
        }
    )
    tracked.file(PLOTS)


def _headline(result: Result) -> dict[str, float]:
    """The numbers of one painter that a table of all painters shows."""
    found = result.attributes
    row = {
        "negatives": found.negatives.estimate,
        "negatives_low": found.negatives.low,
        "negatives_high": found.negatives.high,
        "positives": found.positives.estimate,
    }
    if result.second is not None:
        row["negatives_independent"] = result.second.estimate
    if result.fid is not None:
        row |= {"fid": result.fid.fid, "kid": result.fid.kid}
    if result.fid_clean is not None:
        row["fid_clean"] = result.fid_clean.fid
    if result.diversity is not None:
        row["vendi"] = result.diversity
    if result.nearest is not None:
        row["memorisation"] = result.nearest.share.estimate
    for name, score in result.scores.items():
        row |= {name: score.mean.estimate, f"{name}_low": score.mean.low}
        row[f"{name}_high"] = score.mean.high
    return row | {"clipped": result.clipped}


def _suite(outcome: Outcome) -> dict[str, Any]:
    """What stands beside the scores: weights, preprocessing, scale; or why there is none."""
    return {
        name: {
            "label": entry.about.label,
            "available": entry.unavailable is None,
            "unavailable": entry.unavailable,
            "says": entry.about.says,
            "better": entry.about.better,
            "scale": entry.about.scale,
            "preprocessing": entry.about.preprocessing,
            "features": None if name in suite.BY_PICTURE else outcome.extractor,
            "weights": dict(entry.files),
            "precision": entry.dtype,
            "version": entry.about.version,
        }
        for name, entry in outcome.entries.items()
    }


Rows = list[dict[str, str | float]]


def _tables(outcome: Outcome) -> dict[str, Rows]:
    """Tables that ``dvc plots`` draws and spreadsheets open, by file name."""
    tables: dict[str, Rows] = {}

    def add(table: str, painter: str, **values: str | float) -> None:
        tables.setdefault(table, []).append({"painter": painter, **values})

    for name, result in outcome.results.items():
        found = result.attributes
        add("negatives", name, **_ends(found.negatives))
        if result.difference is not None:
            add("change", name, **_ends(result.difference))
        if result.second is not None:
            add("independent", name, **_ends(result.second))
        for root, value in found.negatives_by_root.items():
            add("roots", name, root=root, **_ends(value))
        for root, value in found.positives_by_root.items():
            add("positives", name, root=root, **_ends(value, "positives"))
        for metric, score in result.scores.items():
            ends = _ends(score.mean, "score")
            add("scores", name, metric=metric, **ends, **_against_the_base(score))
            for place, number in enumerate(score.values):
                add("pictures", name, metric=metric, prompt=place, score=number)
        for path, share in found.negative_shares.items():
            positive = found.positive_shares[path].estimate
            add("criteria", name, criterion=path, **_ends(share), positive=positive)
        for against, distance in (("test", result.fid), ("clean", result.fid_clean)):
            if distance is not None:
                add(
                    "distances",
                    name,
                    against=against,
                    fid=distance.fid,
                    kid=distance.kid,
                    negatives=found.negatives.estimate,
                    painted=distance.painted,
                    real=distance.real,
                    extractor=distance.extractor,
                )
    return tables


def _ends(value: Interval, called: str = "negatives") -> dict[str, float]:
    return {called: value.estimate, "low": value.low, "high": value.high}


def _against_the_base(score: Score) -> dict[str, float | str]:
    """The paired difference and the win rate, with their ends; empty for the base itself."""
    row: dict[str, float | str] = {}
    for called, value in (("difference", score.difference), ("wins", score.wins)):
        ends = ("", "", "") if value is None else (value.estimate, value.low, value.high)
        row |= dict(zip((called, f"{called}_low", f"{called}_high"), ends, strict=True))
    return row


def _csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def picture_grid(outcome: Outcome, columns: int) -> Image.Image:
    """Return one picture: a row a painter, a column a prompt."""
    rows = {one.name: outcome.painted[one.name].images[:columns] for one in outcome.compared}
    return image_grids.labelled(rows, outcome.captions[:columns])


def _curve(one: Candidate) -> dict[str, Points]:
    """A painter's training curves; the told θ1 is the same network as θ1."""
    if one.folder is None or one.name == candidates.WITH_POSITIVES or one.negative is not None:
        return {}
    file = one.folder / "curve.tsv"
    if not file.is_file():
        return {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")), delimiter="\t"):
        step = float(row.pop("step"))
        for name, text in row.items():
            if text:
                curves.setdefault(name, []).append((step, float(text)))
    return dict(curves)


def _page(outcome: Outcome, curves: Mapping[str, dict[str, Points]], profile: Profile) -> Page:
    return Page(
        painters={
            one.name: Painter(
                one.label,
                one.about,
                outcome.painted[one.name],
                outcome.results[one.name],
                curves[one.name],
            )
            for one in outcome.compared
        },
        reference=candidates.BASE,
        featured=profile.cpo.featured,
        prompts=outcome.captions,
        grid_prompts=profile.report.grid_prompts,
        tree=outcome.tree,
        annotator=outcome.annotator,
        second=outcome.second,
        entries=outcome.entries,
        extractor=outcome.extractor,
        unseen=outcome.unseen,
        pairs=outcome.pairs,
        sweeps=candidates.sweeps(profile),
        studies=_studies(outcome),
        data=_data_sheet(outcome.tree),
        provenance=list(_provenance(profile)),
        params=yaml.safe_dump(profile.model_dump(), sort_keys=False, allow_unicode=True),
    )


def _studies(outcome: Outcome) -> list[survey.Page]:
    """What people said of these very pictures."""
    folders = [paths.EVALUATE / "images" / one.name for one in outcome.compared]
    pictures = [file for folder in folders for file in folder.glob("*.png")]
    return surveyed.of_pictures({images.sha256(file) for file in pictures})


def _subjects(outcome: Outcome, profile: Profile) -> Iterable[model_card.Subject]:
    """The painters that are models of their own: not the base, not two LoRAs, and θ1 once."""
    name = read_switch(paths.SWITCH)
    source = Path(profile.model.source)
    for one in outcome.compared:
        alone = one.negative is None and one.name != candidates.WITH_POSITIVES
        if one.folder is not None and alone:
            of = registry.Weights(one.name, "", adapters.file(one.folder))
            yield model_card.Subject(
                name=one.name,
                registered=f"atelier-{name}-{of.kind}",
                folder=one.folder.as_posix(),
                file=of.file.name,
                base=profile.model,
                shipped=source.is_dir(),
                settings=registry.trained_by(one.name, profile),
            )


def _data_sheet(tree: Tree) -> DataSheet:
    parts = {
        name: annotations.read(paths.SPLIT / f"{name}.jsonl", Record)
        for name in ("train", "validation", "test")
    }
    train = parts["train"]
    return DataSheet(
        parts=[_part(name, records) for name, records in parts.items()],
        coverage={
            path: Coverage(
                positive=_share(path in record.positive for record in train),
                negative=_share(path in record.negative for record in train),
            )
            for path in tree.leaves()
        },
        quarantined=[
            (row.file, row.reason)
            for row in annotations.read(paths.ANNOTATE / "quarantine.jsonl", Quarantined)
        ],
    )


def _part(name: str, records: Sequence[Record]) -> Part:
    return Part(
        name=name,
        images=len(records),
        positives=_share(len(record.positive) for record in records),
        negatives=_share(len(record.negative) for record in records),
    )


def _share(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values] or [0.0]))


def _provenance(profile: Profile) -> Iterable[tuple[str, str]]:
    """From which code, data, base and versions the numbers come."""
    tags = mlflow_runs.provenance()
    yield "Command", "python -m tasks evaluate"
    yield "Profile", read_switch(paths.SWITCH)
    yield "Base model", _base(profile)
    if "mlflow.source.git.commit" in tags:
        changed = " with local changes" if tags.get("git.dirty") == "true" else ""
        yield "Git revision", tags["mlflow.source.git.commit"] + changed
    if "dvc.data" in tags:
        yield "Data", f"{tags['dvc.data']} (DVC's hash of data/)"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS]
    yield "Versions", ", ".join([f"Python {platform.python_version()}", *versions])
    yield "Machine", f"{platform.system()} {platform.machine()}, {_device()}"


def _base(profile: Profile) -> str:
    model = profile.model
    revision = f" at {model.revision}" if model.revision else ""
    return f"{model.source}{revision} ({model.family}, {model.dtype}, {model.pixels} pixels)"


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
