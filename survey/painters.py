"""Whose pictures a study shows: those of the stage generate, or a registered model paints them.

A painter of ``survey.painters`` is called as generate calls it (``base``, ``theta1``,
``cpo-s``), or is a version of the registry (``models:/atelier-starter-theta@champion``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atelier import atomic, images
from atelier.config.profile import Profile
from atelier.criteria.annotations import Record
from atelier.criteria.tree import Tree
from atelier.errors import ArtifactError, ParamsError
from survey.files import Painter
from tasks.evaluation import captions
from tasks.run import paths, progress
from tasks.tracking import registry

_IMAGES = paths.GENERATE
REGISTERED = "models:/"
_ADAPTER = "surveyed"


@dataclass(frozen=True)
class Source:
    """A painter, and the folder where its pictures lie as ``000.png`` and so on."""

    painter: Painter
    folder: Path


def records(profile: Profile) -> list[Record]:
    """Return what all painters painted, in order.

    Raises:
        ArtifactError: The paintings were not parted yet.
    """
    return captions.painted(captions.records(profile), profile.generate.prompts)


def of(profile: Profile, asked: Sequence[Record], criteria: Tree, work: Path) -> list[Source]:
    """Return the painters that the profile names, each with a picture of every record.

    Args:
        profile: Whose ``survey.painters`` are looked up.
        asked: What was painted, in order.
        criteria: By which prompts are written.
        work: Folder for pictures that have to be painted now.

    Raises:
        ParamsError: There is no such painter.
        ArtifactError: A painter's pictures are not of these records, or the registry has no
            such version.
    """
    weights = registry.evaluated_weights()
    found = []
    for name in profile.survey.painters:
        if name.startswith(REGISTERED):
            painter, md5 = registry.known(name)
            source = Source(
                Painter(name=name, label=name.removeprefix(REGISTERED), weights=md5),
                _IMAGES / painter,
            )
            if weights.get(painter) != md5:  # the stage's pictures are of other weights
                source = replace(source, folder=work / md5)
                _paint(source, profile, asked, criteria)
            found.append(source)
        else:
            found.append(_evaluated(name, weights.get(name), profile))
    for one in found:
        _check_pictures(one, len(asked))
    return found


def _evaluated(name: str, weights: str | None, profile: Profile) -> Source:
    from tasks.evaluation import candidates

    labels = {one.name: one.label for one in candidates.of(profile)}
    if name not in labels:
        raise ParamsError(
            f"survey.painters: there is no painter {name!r}; there are "
            f"{', '.join(labels)}, and a registered model is called models:/NAME/VERSION"
        )
    return Source(Painter(name=name, label=labels[name], weights=weights), _IMAGES / name)


def _paint(source: Source, profile: Profile, asked: Sequence[Record], criteria: Tree) -> None:
    """Let a registered model paint what the stage had painted, in the same way."""
    from atelier.models import adapters, loading, sampling
    from tasks.training.prompts import Prompts

    base, lora = registry.fetch(source.painter.name)
    painter = loading.load(base)
    adapters.attach(painter, _ADAPTER, lora)
    writer = Prompts(painter, criteria, profile.generate.seed)
    with (
        progress.bar("paint", len(asked), "pictures") as report,
        adapters.use(painter.network, _ADAPTER),
    ):
        pictures = sampling.paint(
            painter,
            [writer.write(record, ()) for record in asked],
            captions.seeds(profile.generate.seed, len(asked)),
            steps=profile.generate.steps,
            guidance=profile.generate.guidance,
            pixels=base.pixels,
            batch_images=profile.generate.batch_images,
            report=report,
        )
        for number, picture in enumerate(pictures):
            atomic.write(source.folder / f"{number:03}.png", images.png(picture))


def _check_pictures(source: Source, count: int) -> None:
    there = len(list(source.folder.glob("[0-9]*.png")))
    if there != count:
        raise ArtifactError(
            f"{source.folder} should hold a picture for each of {count} captions, holds "
            f"{there}; run `dvc repro generate`"
        )
