"""Stage ``evaluate``: the pictures of all candidates are judged, scored and measured."""

import dataclasses
import gc
import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping, Sequence

import numpy as np

from atelier.annotators.protocol import Annotator
from atelier.config.profile import Profile
from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Record
from atelier.criteria.stored.rows import StoredRows
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError
from atelier.metrics import comparison, suite, vendi
from atelier.metrics.about import Entry
from atelier.metrics.comparison import Measured, Real
from atelier.metrics.fid import Extractor, Features
from atelier.starter import feature_network
from atelier.starter.feature_network import Network
from tasks import code
from tasks.annotation import painted_pictures
from tasks.evaluation import captions, evaluated, judging, pictures, scoring
from tasks.evaluation.evaluated import Evaluated
from tasks.evaluation.evaluation_keys import Keys
from tasks.evaluation.parts import Parts
from tasks.run import paths, progress
from tasks.tracking.mlflow_runs import StageRun

_TEST, _TRAIN = "paintings/test", "paintings/train"
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


def run(profile: Profile, tracked: StageRun) -> None:
    """Judge, score and measure what no former run has of the same pictures.

    Reads ``paths.GENERATE``, the split and its paintings; writes judgements, features and
    scores of each candidate, and ``evaluated.json``, under ``paths.EVALUATE``.

    Raises:
        ArtifactError: An input is absent.
        AnnotationError: The annotator gave no answer about a picture.
        ParamsError: The annotator cannot judge pictures that it has never seen.
    """
    criteria = tree.parse(paths.JUDGED_BY)
    annotator, second = painted_pictures.annotator(profile, criteria), judging.second(profile)
    entries = scoring.survey(profile)
    extractor = scoring.extractor(profile, entries)
    candidates = sorted(folder.name for folder in paths.GENERATE.iterdir())
    test = captions.records(profile)
    prompts = [one.caption for one in captions.painted(test, profile.generate.prompts)]
    paintings = _paintings(profile, test)
    keys = Keys(profile, code.packages(), candidates)
    wanted = keys.of_judgements()
    if extractor is not None:
        wanted |= keys.of_features(extractor, paintings)
    for entry in _by_picture(entries):
        wanted |= keys.of_scores(entry, prompts)
    parts = Parts(wanted)
    _judge(parts, candidates, annotator, second, criteria)
    for entry in _by_picture(entries):
        entries[entry.about.name] = _score(parts, entry, candidates, prompts, profile)
    features = (
        {} if extractor is None else _features(parts, extractor, paintings, candidates, profile)
    )
    available = [name for name, entry in entries.items() if not entry.unavailable]
    evaluated.write(
        Evaluated(
            annotator=annotator.name,
            second=None if second is None else feature_network.NAME,
            extractor=None if extractor is None else extractor.name,
            unseen=_unseen(features, len(prompts), available),
            entries=entries,
            measured=_measured(
                candidates, prompts, features, test, available, extractor, profile
            ),
            made_by=_made_by(),
        )
    )
    parts.done()
    tracked.tags(
        {
            f"unavailable.{name}": entry.unavailable
            for name, entry in entries.items()
            if entry.unavailable
        }
    )


def _paintings(profile: Profile, test: Sequence[Record]) -> dict[str, Sequence[Record]]:
    """Whose features the pictures' are compared with, by the part that holds them."""
    if "memorisation" not in profile.evaluate.metrics:
        return {_TEST: test}
    learned = StoredRows(paths.SPLIT / "train.jsonl", Record)
    return {_TEST: test, **({_TRAIN: learned} if learned else {})}


def _by_picture(entries: Mapping[str, Entry]) -> list[Entry]:
    """The metrics that score one picture at a time, and can here."""
    return [
        entry
        for name, entry in entries.items()
        if name in suite.BY_PICTURE and not entry.unavailable
    ]


def _judge(
    parts: Parts,
    candidates: Sequence[str],
    annotator: Annotator,
    second: Network | None,
    criteria: Tree,
) -> None:
    waiting = parts.missing([f"judgements/{name}" for name in candidates])
    counts = {part: len(pictures.files(_candidate(part))) for part in waiting}
    done = 0
    with progress.bar("judge", sum(counts.values()), "pictures") as report:
        for part in waiting:
            said = judging.judgements(
                annotator, second, _candidate(part), criteria, progress.after(done, report)
            )
            parts.put(part, "judgements.jsonl", annotations.lines(said))
            done += counts[part]


def _score(
    parts: Parts,
    entry: Entry,
    candidates: Sequence[str],
    prompts: Sequence[str],
    profile: Profile,
) -> Entry:
    """Score the pictures by one metric; return the metric's entry as it turned out.

    A network whose files are there but cannot be read makes its metric unavailable. One network
    is in memory at a time.
    """
    metric = entry.about.name
    waiting = parts.missing([f"scores/{metric}/{name}" for name in candidates])
    if not waiting:
        return entry
    try:
        network = scoring.scorer(metric, profile)
    except ArtifactError as error:
        unavailable = dataclasses.replace(entry, unavailable=scoring.placeless(str(error)))
        scoring.say_unavailable(unavailable)
        return unavailable
    batch = profile.evaluate.scoring.batch_images
    with progress.bar(metric, len(waiting) * len(prompts), "pictures") as report:
        for place, part in enumerate(waiting):
            values = scoring.scores(
                network,
                pictures.painted(_candidate(part)),
                prompts,
                batch_images=batch,
                report=progress.after(place * len(prompts), report),
            )
            parts.put(part, "scores.json", json.dumps(values.tolist()) + "\n")
    del network
    gc.collect()
    return entry


def _features(
    parts: Parts,
    extractor: Extractor,
    paintings: Mapping[str, Sequence[Record]],
    candidates: Sequence[str],
    profile: Profile,
) -> dict[str, Features]:
    """Features of each candidate's pictures and of paintings, by the part that holds them.

    A part is computed as a whole: in other batches a feature differs in its last digits.
    """
    found = {}
    seen = {part: pictures.paintings(records, profile) for part, records in paintings.items()}
    seen |= {f"features/{name}": pictures.painted(name) for name in candidates}
    for part in parts.missing(list(seen)):
        content = io.BytesIO()
        np.save(content, extractor.features(seen[part]), allow_pickle=False)
        parts.put(part, "features.npy", content.getvalue())
    for part in seen:
        found[part] = np.load(parts.file(part, "features.npy"), allow_pickle=False)
    return found


def _measured(
    candidates: Sequence[str],
    prompts: Sequence[str],
    features: Mapping[str, Features],
    test: Sequence[Record],
    available: Sequence[str],
    extractor: Extractor | None,
    profile: Profile,
) -> dict[str, Measured]:
    real = None
    if _TEST in features:
        clean = [not record.negative for record in test]
        real = Real(features[_TEST], clean, features.get(_TRAIN))
    return {
        name: comparison.measure(
            pictures.painted(name),
            features.get(f"features/{name}"),
            real,
            metrics=available,
            captions=prompts,
            extractor=None if extractor is None else extractor.name,
            seed=profile.generate.seed,
        )
        for name in candidates
    }


def _unseen(
    features: Mapping[str, Features], count: int, available: Sequence[str]
) -> tuple[float, int] | None:
    """The Vendi score of the first ``count`` test paintings, and how many those are."""
    if _TEST not in features or "vendi" not in available:
        return None
    first = features[_TEST][:count]
    return vendi.vendi(first), len(first)


def _candidate(part: str) -> str:
    return part.rpartition("/")[2]


def _made_by() -> dict[str, str]:
    """From which versions and which machine the numbers come."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS]
    return {
        "Versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "Machine": f"{platform.system()} {platform.machine()}, {device}",
    }
