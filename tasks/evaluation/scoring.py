"""What ``evaluate`` measures by networks of others: which are here, and what they say.

Asked in the first second which weights are absent, so that no metric fails after hours of
painting: what cannot be measured is unavailable, with the command that cures it.
"""

import dataclasses
import gc
import sys
from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from atelier.config.evaluation import ScoringParams
from atelier.config.profile import Profile
from atelier.criteria import annotations
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ParamsError
from atelier.images import Pixels
from atelier.metrics import fid, score_cache, suite, vendi
from atelier.metrics.about import Entry
from atelier.metrics.comparison import Real, Result
from atelier.metrics.fid import Extractor, Features
from atelier.metrics.score_cache import Remembered
from atelier.metrics.scorer import Compute
from atelier.reports.evaluation_data import Pair
from atelier.starter import feature_network
from tasks.commands import features
from tasks.run import paths, progress
from tasks.training import encoded_dataset

_PAIRS = 3  # of the featured painter; one of each other
_LEAST = 1e-12  # distance that divides


def survey(profile: Profile) -> dict[str, Entry]:
    """Return the metrics of the profile, and say aloud which are unavailable.

    Raises:
        ParamsError: The device that was asked for is not there.
    """
    found = suite.survey(
        profile.evaluate.metrics,
        paths.weights(),
        compute(profile.evaluate.scoring),
        features=profile.evaluate.features,
    )
    for entry in found.values():
        if entry.unavailable:
            sys.stdout.write(f"{entry.about.label} is unavailable: {entry.unavailable}\n")
    sys.stdout.flush()  # into a log, too, before hours of painting
    return found


def compute(params: ScoringParams) -> Compute:
    """Return where networks run.

    Raises:
        ParamsError: It is cuda, and there is none.
    """
    import torch

    there = torch.cuda.is_available()
    if params.device == "cuda" and not there:
        raise ParamsError(
            "evaluate.scoring.device is 'cuda', which torch does not find here; set it to "
            "'auto' or 'cpu'"
        )
    chosen = params.device if params.device != "auto" else ("cuda" if there else "cpu")
    return Compute(chosen, params.dtype)


def extractor(profile: Profile, entries: Mapping[str, Entry]) -> Remembered | None:
    """Return the network whose features FID and its kin compare; None if it is not here."""
    found: Extractor
    if profile.evaluate.features == "inception":
        mine = [entry for name, entry in entries.items() if name not in suite.BY_PICTURE]
        if not mine or mine[0].unavailable:
            return None
        (checksum,) = mine[0].files.values()
        found = fid.Inception(paths.weights() / "inception", checksum)
    else:
        found = feature_network.read(features.FOLDER)
    return Remembered(found, paths.FEATURES)


def learned(profile: Profile, network: Remembered | None) -> Features | None:
    """Return the features of the training paintings, if memorisation is asked for."""
    if network is None or "memorisation" not in profile.evaluate.metrics:
        return None
    records = training_records()
    if not records:
        return None
    keys = [f"{record.image} {profile.model.pixels}" for record in records]
    return network.known(keys, _Paintings(records, profile))


def unseen(
    real: Real, network: Remembered | None, count: int, profile: Profile
) -> tuple[float, int] | None:
    """Return the Vendi score of the first ``count`` test paintings, and how many there are."""
    if network is None or "vendi" not in profile.evaluate.metrics:
        return None
    features = network.features(real.images)[:count]
    return vendi.vendi(features), len(features)


def closest(found: Mapping[str, Result], profile: Profile) -> dict[str, list[Pair]]:
    """Return each painter's closest picture to a training painting; more if it is featured."""
    records = training_records()
    pairs: dict[str, list[Pair]] = {}
    for name, result in found.items():
        nearest = result.nearest
        if nearest is None:
            continue
        count = _PAIRS if name == profile.cpo.featured else 1
        for place in nearest.closest(count):
            record = records[nearest.places[place]]
            pairs.setdefault(name, []).append(
                Pair(
                    index=place,
                    painting=encoded_dataset.picture(record.file, profile),
                    title=record.caption,
                    # A limit of 0 says that test paintings are training paintings.
                    distance=float(nearest.distances[place] / max(nearest.limit, _LEAST)),
                )
            )
    return pairs


def training_records() -> list[Record]:
    """Return the records of the training part, in the order of ``learned``."""
    return annotations.read(paths.SPLIT / "train.jsonl", Record)


def by_picture(
    entries: Mapping[str, Entry],
    painted: Mapping[str, Sequence[Pixels]],
    prompts: Sequence[str],
    profile: Profile,
) -> tuple[dict[str, dict[str, NDArray[np.float64]]], dict[str, Entry]]:
    """Return the scores by metric and painter, and the entries as they turned out.

    A network whose files are there but cannot be read makes its metric unavailable too. One
    network is in memory at a time.
    """
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    entries = dict(entries)
    for name in [name for name, entry in entries.items() if name in suite.BY_PICTURE]:
        if entries[name].unavailable:
            continue
        try:
            found[name] = _of(entries[name], painted, prompts, profile)
        except ArtifactError as error:
            entries[name] = dataclasses.replace(entries[name], unavailable=str(error))
            sys.stdout.write(f"{entries[name].about.label} is unavailable: {error}\n")
        gc.collect()
    return found, entries


def _of(
    entry: Entry,
    painted: Mapping[str, Sequence[Pixels]],
    prompts: Sequence[str],
    profile: Profile,
) -> dict[str, NDArray[np.float64]]:
    """All pictures in one call, so that the network is loaded once at most."""
    images = [image for row in painted.values() for image in row]
    params = profile.evaluate.scoring
    with progress.bar(entry.about.name, len(images), "pictures") as report:
        values = score_cache.scored(
            entry,
            images,
            list(prompts) * len(painted),
            load=lambda: suite.load(entry.about.name, paths.weights(), compute(params)),
            folder=paths.SCORES,
            batch_images=params.batch_images,
            report=report,
        )
    return dict(zip(painted, np.split(values, len(painted)), strict=True))


class _Paintings(Sequence[Pixels]):
    """Paintings of ``data/`` as the painter sees them, read when they are looked at."""

    def __init__(self, records: Sequence[Record], profile: Profile) -> None:
        self._records, self._profile = records, profile

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Pixels]: ...
    def __getitem__(self, place: int | slice) -> Pixels | Sequence[Pixels]:
        if isinstance(place, slice):
            return [
                encoded_dataset.picture(record.file, self._profile)
                for record in self._records[place]
            ]
        return encoded_dataset.picture(self._records[place].file, self._profile)
