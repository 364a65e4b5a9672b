"""What ``evaluate`` leaves behind: metrics for DVC and MLflow, tables, a grid, the report."""

import csv
import importlib.metadata
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont

from atelier import atomic
from atelier.criteria import annotations
from atelier.criteria.annotations import Quarantined, Record
from atelier.criteria.tree import Tree
from atelier.evaluation import report
from atelier.evaluation.charts import Points
from atelier.evaluation.comparison import Painted, Result
from atelier.evaluation.page import Coverage, DataSheet, Page, Painter, Part
from atelier.evaluation.statistics import Interval
from atelier.params import Profile, read_switch
from tasks import contestants, paths, tracking
from tasks.contestants import Contestant
from tasks.tracking import StageRun

METRICS = paths.EVALUATE / "metrics.json"
PLOTS = paths.EVALUATE / "plots"
REPORT = paths.EVALUATE / "report.html"
_VERSIONS = ("torch", "diffusers", "transformers", "peft", "numpy", "scipy", "clean-fid")
_GRID_MARGIN = 6  # pixels between pictures
_GRID_LABEL = 132  # pixels for the painters' names


@dataclass(frozen=True)
class Outcome:
    """Everything that evaluate found.

    Attributes:
        entrants: The painters, the base first.
        painted: Pictures and findings of each.
        results: What was measured of each.
        captions: What was painted.
        tree: The criteria.
        annotator: Who judged.
        second: The independent judge, if there is one.
    """

    entrants: Sequence[Contestant]
    painted: Mapping[str, Painted]
    results: Mapping[str, Result]
    captions: Sequence[str]
    tree: Tree
    annotator: str
    second: str | None


def write(outcome: Outcome, profile: Profile, tracked: StageRun) -> None:
    """Write metrics, plots, grid and report, and hand them to MLflow."""
    curves = {one.name: _curve(one) for one in outcome.entrants}
    metrics = {one.name: _headline(outcome.results[one.name]) for one in outcome.entrants}
    for name, curve in curves.items():
        if "drift" in curve:
            metrics[name]["drift"] = curve["drift"][-1][1]
    atomic.write(METRICS, json.dumps(metrics, indent=2) + "\n")
    for name, rows in _tables(outcome).items():
        atomic.write(PLOTS / f"{name}.csv", _csv(rows))
    grid = picture_grid(outcome, profile.evaluate.grid_prompts)
    atomic.write(PLOTS / "grid.png", _png(grid))
    atomic.write(REPORT, report.render(_page(outcome, curves, profile)))
    tracked.metrics(
        {f"{name}/{key}": value for name, row in metrics.items() for key, value in row.items()}
    )
    tracked.picture("grid", grid)
    tracked.file(REPORT)
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
    return row | {"clipped": result.clipped}


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


def _ends(value: Interval) -> dict[str, float]:
    return {"negatives": value.estimate, "low": value.low, "high": value.high}


def _csv(rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def picture_grid(outcome: Outcome, columns: int) -> Image.Image:
    """Return one picture: a row a painter, a column a prompt."""
    first = [outcome.painted[one.name].images[:columns] for one in outcome.entrants]
    side = first[0][0].shape[0]
    step = side + _GRID_MARGIN
    grid = Image.new(
        "RGB",
        (_GRID_LABEL + step * len(first[0]), step * len(first) + _GRID_MARGIN),
        "white",
    )
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(15)
    for row, (one, pictures) in enumerate(zip(outcome.entrants, first, strict=True)):
        top = _GRID_MARGIN + row * step
        draw.text((8, top + side // 2), one.name, "black", font, anchor="lm")
        for column, picture in enumerate(pictures):
            grid.paste(Image.fromarray(picture), (_GRID_LABEL + column * step, top))
    return grid


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _curve(one: Contestant) -> dict[str, Points]:
    """A painter's training curves; the told θ1 is the same network as θ1."""
    if one.folder is None or one.name == contestants.TOLD or one.negative is not None:
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
            for one in outcome.entrants
        },
        reference=contestants.BASE,
        featured=profile.cpo.featured,
        prompts=outcome.captions,
        grid_prompts=profile.evaluate.grid_prompts,
        tree=outcome.tree,
        annotator=outcome.annotator,
        second=outcome.second,
        data=_data_sheet(outcome.tree),
        provenance=list(_provenance(profile)),
        params=yaml.safe_dump(profile.model_dump(), sort_keys=False, allow_unicode=True),
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
    tags = tracking.provenance()
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
