"""Networks of metrics: which of them are installed, and their scores of pictures.

A metric whose weights are absent is unavailable, with the command that cures it, and no error.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from atelier import out_of_memory
from atelier.config.evaluation import ScoringParams
from atelier.config.profile import Profile
from atelier.errors import ParamsError
from atelier.images import Pixels
from atelier.metrics import fid, suite
from atelier.metrics.about import Entry
from atelier.metrics.fid import Extractor
from atelier.metrics.scorer import Compute, Scorer
from atelier.reporting import Report
from atelier.starter import feature_network
from tasks.run import paths


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
    found = {
        name: dataclasses.replace(entry, unavailable=placeless(entry.unavailable))
        for name, entry in found.items()
    }
    absent = [entry for entry in found.values() if entry.unavailable]
    if absent:
        say_unavailable(*absent)
    return found


def placeless(text: str | None) -> str | None:
    """Return what is said of weights without where they lie: it is shown in reports."""
    folder = paths.weights()
    if text is None or not folder.is_absolute():
        return text
    return text.replace(str(folder), "$ATELIER_WEIGHTS")


def say_unavailable(*entries: Entry) -> None:
    """Say in a line what cannot be measured, also in a log, before it is too late."""
    labels = ", ".join(entry.about.label for entry in entries)
    if len(entries) == 1:
        said = f"{labels} is unavailable: {entries[0].unavailable}\n"
    else:
        said = f"{labels} are unavailable; `atelier weights` says what each needs\n"
    sys.stdout.write(said)
    sys.stdout.flush()


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


def extractor(profile: Profile, entries: Mapping[str, Entry]) -> Extractor | None:
    """Return the network whose features FID, KID, … compare; None if it is not here."""
    if profile.evaluate.features == "inception":
        mine = [entry for name, entry in entries.items() if name not in suite.BY_PICTURE]
        if not mine or mine[0].unavailable:
            return None
        (checksum,) = mine[0].files.values()
        return fid.Inception(paths.weights() / "inception", checksum)
    return feature_network.read(paths.FEATURE_NETWORK)


def scorer(metric: str, profile: Profile) -> Scorer:
    """Load the network of a metric that scores one picture at a time.

    Raises:
        ArtifactError: Its weights cannot be read.
    """
    return suite.load(metric, paths.weights(), compute(profile.evaluate.scoring))


def scores(
    network: Scorer,
    images: Sequence[Pixels],
    prompts: Sequence[str],
    *,
    batch_images: int,
    report: Report,
) -> NDArray[np.float64]:
    """Return the score of each picture, ``[N]``.

    Raises:
        RoomError: The device has too little memory.
        ValueError: The network gave a score that is no finite number.
    """
    found = []
    for start in range(0, len(images), batch_images):
        rows = slice(start, start + batch_images)
        with _explained(batch_images):
            values = network(images[rows], prompts[rows])
        if values.shape != (len(prompts[rows]),) or not np.isfinite(values).all():
            raise ValueError(f"the network gave {values!r} for {len(prompts[rows])} pictures")
        found.append(values)
        report(min(start + batch_images, len(images)), {})
    return np.concatenate(found)


def _explained(batch_images: int) -> contextlib.AbstractContextManager[None]:
    """What to change where a batch of pictures does not fit beside a metric's network."""
    half = f"evaluate.scoring.batch_images: {batch_images // 2} (now {batch_images})"
    return out_of_memory.explained(
        f"Scoring {batch_images} picture(s) at once",
        [
            *([half] if batch_images > 1 else []),
            "evaluate.scoring.dtype: bfloat16 (part of a score's identity)",
            "evaluate.scoring.device: cpu (slower)",
        ],
        then="Parts that are finished are kept",
    )
