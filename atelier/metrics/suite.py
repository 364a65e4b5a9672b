"""The suite of metrics: which exist, which are available here, and their provenance."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from atelier.metrics import fid, kid, memorization, vendi, weights
from atelier.metrics.about import About, Entry
from atelier.metrics.scorer import Compute, Scorer
from atelier.metrics.scorers import (
    aesthetic,
    artimuse,
    clipscore,
    hpsv2,
    hpsv3,
    imagereward,
    pickscore,
    unifiedreward,
)

# Of sets of pictures, by one network's features.
_BY_FEATURES = (fid.ABOUT, kid.ABOUT, vendi.ABOUT, memorization.ABOUT)
# Of one picture at a time, each by a network of its own.
_LOADERS: dict[About, Callable[[Path, Compute], Scorer]] = {
    clipscore.ABOUT: clipscore.load,
    pickscore.ABOUT: pickscore.load,
    hpsv2.V20: partial(hpsv2.load, name=hpsv2.V20.name),
    hpsv2.V21: partial(hpsv2.load, name=hpsv2.V21.name),
    imagereward.ABOUT: imagereward.load,
    aesthetic.ABOUT: aesthetic.load,
    hpsv3.ABOUT: hpsv3.load,
    unifiedreward.ABOUT: unifiedreward.load,
    artimuse.ABOUT: artimuse.load,
}
BY_PICTURE = {about.name: about for about in _LOADERS}
ALL = {about.name: about for about in _BY_FEATURES} | BY_PICTURE


def survey(
    names: Sequence[str], folder: Path, compute: Compute, *, features: str
) -> dict[str, Entry]:
    """Return for each metric whether its weights are present, before any generation.

    Args:
        names: Metrics of the profile, in the order of tables.
        folder: Where weights lie.
        compute: Where networks run.
        features: Extractor of FID, KID, Vendi score and memorization, as ``evaluate.features``.
    """
    return {name: _entry(ALL[name], folder, compute, features) for name in names}


def load(name: str, folder: Path, compute: Compute) -> Scorer:
    """Load the network of a metric of ``BY_PICTURE``."""
    return _LOADERS[BY_PICTURE[name]](folder, compute)


def module(name: str) -> str:
    """Return the name of the module that scores by a metric of ``BY_PICTURE``."""
    loader = _LOADERS[BY_PICTURE[name]]
    return (loader.func if isinstance(loader, partial) else loader).__module__


def needed(names: Sequence[str], *, features: str) -> list[str]:
    """Return the sets of weights that these metrics need, as the manifest names them."""
    return list(dict.fromkeys(w for name in names for w in _weights(ALL[name], features)))


def _entry(about: About, folder: Path, compute: Compute, features: str) -> Entry:
    wanted = _weights(about, features)
    reason = weights.absent(wanted, folder) if wanted else None
    files = weights.recorded(wanted, folder) if wanted and reason is None else {}
    dtype = compute.dtype if about.name in BY_PICTURE else "float32"
    return Entry(about, files, dtype, reason)


def _weights(about: About, features: str) -> tuple[str, ...]:
    if about.name not in BY_PICTURE and features == "inception":
        return ("inception",)
    return about.weights
