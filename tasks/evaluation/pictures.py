"""Painted pictures, and paintings of ``data/``, read from their files when looked at."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np

from atelier import images
from atelier.config.profile import Profile
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ImageError
from atelier.images import Pixels
from atelier.on_disk import Lazily
from tasks.run import paths
from tasks.training import pictures

_NO_LIMIT = 2**31  # pixels; these pictures are our own


class Pictures(Sequence[Pixels]):
    """Pictures that are read from their files whenever they are looked at."""

    def __init__(self, readers: Sequence[Callable[[], Pixels]]) -> None:
        self._readers = readers

    def __len__(self) -> int:
        return len(self._readers)

    @overload
    def __getitem__(self, place: int) -> Pixels: ...
    @overload
    def __getitem__(self, place: slice) -> "Pictures": ...
    def __getitem__(self, place: int | slice) -> "Pixels | Pictures":
        if isinstance(place, slice):
            return Pictures(self._readers[place])
        return self._readers[place]()


def files(candidate: str) -> list[Path]:
    """Return the files of a candidate's pictures, in the order of the captions."""
    return sorted((paths.GENERATE / candidate).glob("[0-9]*.png"))


def painted(candidate: str) -> Pictures:
    """Return a candidate's pictures."""
    return Pictures([partial(_read, file) for file in files(candidate)])


def paintings(records: Sequence[Record], profile: Profile) -> Pictures:
    """Return paintings of ``data/`` as the model sees them."""
    return Pictures(Lazily(records, lambda one: partial(pictures.square, one.file, profile)))


def _read(file: Path) -> Pixels:
    try:
        return np.array(images.read(file, _NO_LIMIT))
    except ImageError as error:
        raise ArtifactError(
            f"{file} cannot be read ({error}); run `dvc repro generate`, which paints it again"
        ) from None
