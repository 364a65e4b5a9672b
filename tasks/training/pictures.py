"""Pictures of ``data/`` as models see them; without torch, for stages that only show them."""

from PIL import Image

from atelier import images
from atelier.config.profile import Profile
from atelier.errors import ArtifactError, ImageError
from atelier.images import Pixels, Size
from tasks.run import paths


def square(file: str, profile: Profile) -> Pixels:
    """Return a picture of ``data/`` as the model generates them, square, ``[H, W, 3]``.

    Raises:
        ArtifactError: It cannot be read any more.
    """
    return images.square(opened(file, profile), profile.model.pixels)


def opened(file: str, profile: Profile) -> Image.Image:
    """Return a picture of ``data/`` in its own size.

    Raises:
        ArtifactError: It cannot be read any more.
    """
    try:
        return images.read(paths.DATA / file, profile.annotate.largest_pixels)
    except ImageError as error:
        raise _unreadable(file, error) from None


def size(file: str, profile: Profile) -> Size:
    """Return the size of a picture of ``data/``.

    Raises:
        ArtifactError: It cannot be read any more.
    """
    try:
        return images.size_of(paths.DATA / file, profile.annotate.largest_pixels)
    except ImageError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: str, error: ImageError) -> ArtifactError:
    return ArtifactError(
        f"{paths.DATA / file} was readable when it was annotated and is not now ({error}); put "
        "it back, or run `dvc repro` to annotate what is there"
    )
