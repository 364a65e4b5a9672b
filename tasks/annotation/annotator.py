"""The annotator of the dataset: the profile's settings and the paths of this repository."""

import os
from collections.abc import Sequence
from pathlib import Path

from atelier import images
from atelier.annotators import choice
from atelier.annotators.inspection import Limits
from atelier.annotators.protocol import Annotator, Picture
from atelier.config.annotation import AnnotateParams
from atelier.config.model import Buckets
from atelier.config.profile import Profile
from atelier.criteria.dataset import Entry
from atelier.criteria.tree import Tree
from atelier.errors import ParamsError
from atelier.on_disk import Lazily
from tasks.run import paths


def of_data(profile: Profile, tree: Tree) -> Annotator:
    """Return the annotator of the pictures in ``paths.DATA``.

    Raises:
        ArtifactError: A file of ``annotate.recorded`` is absent.
        AnnotationError: A file of ``annotate.recorded`` does not fit the tree.
        ParamsError: ``annotate.recorded`` or ``annotate.adjudication`` names what is absent.
    """
    params = profile.annotate
    recordings = [_label_file(name) for name in params.recorded or ()]
    limits = of_settings(params, profile.model.pixels, profile.model.buckets)
    return choice.of_dataset(
        params, tree, limits, responses=paths.ANSWERS, recordings=recordings
    )


def pictures(entries: Sequence[Entry]) -> Sequence[Picture]:
    """Return the pictures of the dataset, with a title where a caption is wanted."""
    return Lazily(
        entries,
        lambda one: Picture(
            paths.DATA / one.file, one.caption or None, None if one.caption else one.title
        ),
    )


def of_settings(params: AnnotateParams, pixels: int, buckets: Buckets | None) -> Limits:
    """Return which pictures the settings allow, and the sizes at which they are judged.

    These are the sizes at which training learns them, so that nothing is judged that is not
    learned, and all that is learned is judged.
    """
    sizes = None
    if buckets is not None:
        found = images.sizes_of_area(pixels, buckets.step_pixels, buckets.longest_ratio)
        sizes = tuple(found)
    return Limits(params.smallest_side_pixels, params.largest_pixels, pixels, sizes)


def _label_file(name: str) -> Path:
    """A file of judgements; elsewhere DVC would not see it change, and rerun nothing."""
    path = Path(os.path.normpath(name))
    if path.is_absolute() or path.parts[:1] != paths.LABELS.parts:
        raise ParamsError(
            f"annotate.recorded should name files inside {paths.LABELS}/, whose changes DVC "
            f"sees, is {name!r}; move it there"
        )
    return path
