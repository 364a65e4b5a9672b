"""Records and pictures, encoded: what the training stages read, built once and cached."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atelier import images
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ImageError
from atelier.models import Denoiser
from atelier.models.sampling import to_pixels
from atelier.params import Profile
from atelier.training import latents
from atelier.training.steps import Corpus
from tasks import paths, progress

_IMAGES_AT_ONCE = 16
_TEXTS_AT_ONCE = 256


def encode(
    painter: Denoiser,
    records: Sequence[Record],
    prompts: Mapping[str, Sequence[Sequence[str]]],
    profile: Profile,
) -> Corpus:
    """Return the corpus of ``records``; afterwards the painter has no encoders in memory.

    Args:
        painter: Whose codec and text encoders are used.
        records: The images, in order.
        prompts: For each role, the prompts of each image.
        profile: Its model's picture size, and how large a picture may be read.
    """
    every = [""] + [prompt for role in prompts.values() for row in role for prompt in row]
    distinct = list(dict.fromkeys(every))
    with progress.bar("text embeddings", len(distinct), "prompts") as report:
        conditions = latents.texts(
            painter, distinct, folder=paths.CACHE, batch_texts=_TEXTS_AT_ONCE, report=report
        )
    files = {record.image: record.file for record in records}

    def pixels_of(hashes: Sequence[str]) -> Tensor:
        return to_pixels(np.stack([picture(files[image], profile) for image in hashes]))

    with progress.bar("latents", len(records), "images") as report:
        encoded = latents.latents(
            painter,
            [record.image for record in records],
            pixels_of,
            size=profile.model.pixels,
            folder=paths.CACHE,
            batch_images=_IMAGES_AT_ONCE,
            report=report,
        )
    painter.release_encoders()
    number = {prompt: row for row, prompt in enumerate(distinct)}
    rows = {
        role: torch.tensor([[number[prompt] for prompt in row] for row in of_images])
        for role, of_images in prompts.items()
    }
    return Corpus(latents=encoded, prompts=conditions, rows=rows, empty=number[""])


def picture(file: str, profile: Profile) -> images.Pixels:
    """Return a picture of ``data/`` as the painter sees it, square, ``[H, W, 3]``.

    Raises:
        ArtifactError: It cannot be read any more.
    """
    path = paths.DATA / file
    try:
        image = images.read(path, profile.annotate.largest_pixels)
    except ImageError as error:
        raise ArtifactError(
            f"{path} was readable when it was annotated and is not now ({error}); put it "
            "back, or run `dvc repro` to annotate what is there"
        ) from None
    return images.square(image, profile.model.pixels)


def weights_of(profile: Profile) -> Path | str:
    """Return what tells two bases apart: the folder, or the hub id at its commit."""
    folder = Path(profile.model.source)
    return folder if folder.is_dir() else f"{profile.model.source}@{profile.model.revision}"
