"""What the report and the model cards show, collected from files and results."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from atelier import images
from atelier.certificates import certificate as certificates
from atelier.certificates import correction
from atelier.config.model import public_name
from atelier.config.profile import Profile, read_switch
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Tree
from atelier.metrics.comparison import Painted, Result
from atelier.models.files import weight_files
from atelier.reports import model_card
from atelier.reports.charts import Points
from atelier.reports.evaluation_data import Page, Painter, Pair
from tasks.evaluation import candidates, pictures
from tasks.evaluation.candidates import Candidate
from tasks.evaluation.evaluated import Evaluated
from tasks.reporting import data_sheet, studies
from tasks.run import paths
from tasks.tracking import mlflow_runs
from tasks.training import settings
from tasks.training.pictures import square

_PAIRS = 3  # of the featured candidate; one of each other
_LEAST = 1e-12  # distance that divides


def of(
    compared: Sequence[Candidate],
    found: Evaluated,
    painted: Mapping[str, Painted],
    results: Mapping[str, Result],
    records: Sequence[Record],
    learned: Sequence[Record],
    tree: Tree,
    profile: Profile,
) -> Page:
    """Return the page.

    Args:
        compared: The candidates, the base first.
        found: What ``evaluate`` left.
        painted: Pictures and findings of each candidate.
        results: What is known of each.
        records: Whose captions were painted.
        learned: The training part.
        tree: The criteria.
        profile: In force.

    Raises:
        ArtifactError: A certificate cannot be read.
    """
    certificate = certificates.of(paths.CERTIFICATES, found.annotator, tree)
    return Page(
        painters={
            one.name: Painter(
                one.label,
                one.about,
                one.how(profile).passes,
                painted[one.name],
                results[one.name],
                curves(one),
            )
            for one in compared
        },
        reference=candidates.BASE,
        featured=profile.cpo.featured,
        prompts=[record.caption for record in records],
        grid_prompts=profile.report.grid_prompts,
        tree=tree,
        annotator=found.annotator,
        second=found.second,
        entries=found.entries,
        extractor=found.extractor,
        unseen=found.unseen,
        pairs=_closest(results, learned, profile),
        sweeps=candidates.sweeps(profile),
        studies=studies.sections(
            {images.sha256(file) for one in compared for file in pictures.files(one.name)}
        ),
        data=data_sheet.of(tree),
        provenance=list(_provenance(found, profile)),
        certificate=certificate,
        corrected={}
        if certificate is None or not certificate.references
        else {
            one.name: correction.correct(
                painted[one.name].found, [record.caption for record in records], certificate
            )
            for one in compared
        },
        params=_params(profile),
    )


def curves(one: Candidate) -> dict[str, Points]:
    """Return a candidate's training curves, if it is a model of its own."""
    if one.folder is None or not _is_a_model(one):
        return {}
    file = one.folder / "curve.tsv"
    if not file.is_file():
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    for row in csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")), delimiter="\t"):
        step = float(row.pop("step"))
        for name, text in row.items():
            if text:
                found.setdefault(name, []).append((step, float(text)))
    return dict(found)


def subjects(compared: Sequence[Candidate], profile: Profile) -> Iterable[model_card.Subject]:
    """Yield the models that get a card: not the base, not two LoRAs together, and θ1 once."""
    name = read_switch(paths.SWITCH)
    for one in compared:
        if one.folder is not None and _is_a_model(one):
            kind = "theta1" if one.name == candidates.THETA1 else "theta"
            yield model_card.Subject(
                name=one.name,
                registered=f"atelier-{name}-{kind}",
                folder=one.folder.as_posix(),
                file=weight_files.file(one.folder).name,
                base=profile.model,
                needs_atelier=_has_own_classes(Path(profile.model.source)),
                settings=settings.of(one.name, profile),
                sampling=one.how(profile).in_words(),
            )


def _has_own_classes(base: Path) -> bool:
    """Whether the model_index.json of a base's folder names a class of this library."""
    file = base / "model_index.json"
    if not file.is_file():
        return False
    parts = json.loads(file.read_text(encoding="utf-8")).values()
    return any(
        isinstance(part, list) and str(part[0]).partition(".")[0] == "atelier" for part in parts
    )


def _is_a_model(one: Candidate) -> bool:
    return one.negative is None and not one.with_positives and one.milestone is None


def _closest(
    results: Mapping[str, Result], learned: Sequence[Record], profile: Profile
) -> dict[str, list[Pair]]:
    """Each candidate's closest picture to a training painting; more if it is featured."""
    pairs: dict[str, list[Pair]] = {}
    for name, result in results.items():
        nearest = result.nearest
        if nearest is None:
            continue
        count = _PAIRS if name == profile.cpo.featured else 1
        for place in nearest.closest(count):
            record = learned[nearest.places[place]]
            pairs.setdefault(name, []).append(
                Pair(
                    index=place,
                    painting=square(record.file, profile),
                    title=record.caption,
                    # A limit of 0 says that test paintings are training paintings.
                    distance=float(nearest.distances[place] / max(nearest.limit, _LEAST)),
                )
            )
    return pairs


def _provenance(found: Evaluated, profile: Profile) -> Iterable[tuple[str, str]]:
    """From which code, data, base and versions the numbers come."""
    tags = mlflow_runs.provenance()
    yield "Command", "dvc repro"
    yield "Profile", read_switch(paths.SWITCH)
    yield "Base model", _base(profile)
    if "mlflow.source.git.commit" in tags:
        changed = " with local changes" if tags.get("git.dirty") == "true" else ""
        yield "Git revision", tags["mlflow.source.git.commit"] + changed
    if "dvc.data" in tags:
        yield "Data", f"{tags['dvc.data']} (DVC's hash of data/)"
    yield from found.made_by.items()


def _params(profile: Profile) -> str:
    """The profile as YAML, with the base's name in place of a place on this machine."""
    values = profile.model_dump()
    values["model"]["source"] = public_name(profile.model)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _base(profile: Profile) -> str:
    model = profile.model
    revision = f" at {model.revision}" if model.revision else ""
    return (
        f"{public_name(model)}{revision} ({model.family}, {model.dtype}, {model.pixels} pixels)"
    )
