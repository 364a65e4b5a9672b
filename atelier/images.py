"""Reading pictures: upright, in RGB, or refused with a reason; resizing and cropping."""

import contextlib
import hashlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from atelier import image_files
from atelier.errors import ImageError

Seen = TypeVar("Seen")
Pixels = NDArray[np.uint8]  # [H, W, 3], RGB
Size = tuple[int, int]  # height, width

# What may be opened: Pillow knows more formats, some of which start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000")

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B"}
_COLOUR_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # mode: its ICC colour space
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def sha256(path: Path) -> str:
    """Return the hash of the file's bytes, by which a picture is known everywhere."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path, largest_pixels: int) -> Image.Image:
    """Read a picture upright, in RGB with 8 bits, in sRGB where it says what else it is in.

    Transparent parts become white, an animation becomes its first frame.

    Args:
        path: A file in one of ``FORMATS``.
        largest_pixels: A picture whose header promises more is refused undecoded.

    Raises:
        ImageError: It cannot be used; the text is the reason, without the file's name.
    """
    return _looked_at(path, largest_pixels, _decoded)


@dataclass(frozen=True)
class Framed:
    """A picture cut to a size, and what was done to it.

    Attributes:
        pixels: uint8 ``[H, W, 3]``.
        original: Height and width before.
        corner: Top and left of the part that was kept, in pixels of the resized picture.
    """

    pixels: Pixels
    original: Size
    corner: tuple[int, int]


def cover(image: Image.Image, size: Size) -> Framed:
    """Resize an RGB picture until it covers ``size``, and keep the middle: no distortion."""
    height, width = size
    if image.width * height >= image.height * width:
        kept_height, kept_width = float(image.height), image.height * width / height
    else:
        kept_height, kept_width = image.width * height / width, float(image.width)
    left, top = (image.width - kept_width) // 2, (image.height - kept_height) // 2
    box = (left, top, left + kept_width, top + kept_height)
    resized = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
    scale = height / kept_height
    corner = (round(top * scale), round(left * scale))
    return Framed(np.array(resized), (image.height, image.width), corner)


def square(image: Image.Image, pixels: int) -> Pixels:
    """Return the middle square of an RGB picture at ``pixels`` a side, uint8 ``[H, W, 3]``."""
    return cover(image, (pixels, pixels)).pixels


def framed(image: Image.Image, pixels: int, sizes: Sequence[Size] | None) -> Pixels:
    """Return an RGB picture as it is learned: the middle square, or cut to one of ``sizes``."""
    if sizes is None:
        return square(image, pixels)
    return cover(image, nearest((image.height, image.width), sizes)).pixels


def sizes_of_area(pixels: int, step: int, longest_ratio: float) -> list[Size]:
    """Return the sizes of about the area of a square of side ``pixels``, narrow to wide.

    Args:
        pixels: Side of that square.
        step: Every side is a multiple of it.
        longest_ratio: Of the longer side to the shorter one, at most.
    """
    found = set()
    for count in range(1, math.ceil(pixels * math.sqrt(longest_ratio) / step) + 1):
        side = count * step
        other = max(round(pixels * pixels / side / step), 1) * step
        if max(side, other) <= longest_ratio * min(side, other):
            found |= {(side, other), (other, side)}
    return sorted(found, key=lambda size: (size[1] / size[0], size))


def nearest(size: Size, sizes: Sequence[Size]) -> Size:
    """Return that of ``sizes`` of which the least is cut off to show ``size``."""
    ratio = math.log(size[1] / size[0])
    return min(sizes, key=lambda other: abs(math.log(other[1] / other[0]) - ratio))


def size_of(path: Path, largest_pixels: int) -> Size:
    """Return height and width of a picture, upright, from its header.

    Raises:
        ImageError: As for ``read``, except damage that only decoding shows.
    """
    return _looked_at(path, largest_pixels, _upright_size)


def refuse_by_header(path: Path, largest_pixels: int, smallest_side_pixels: int) -> None:
    """Refuse a file whose header says that it cannot be used; damage further on is not seen.

    Raises:
        ImageError: As for ``read``; or it is too small.
    """
    size = _looked_at(path, largest_pixels, lambda image: image.size, header=True)
    refuse_if_small(size, smallest_side_pixels)


def refuse_if_small(size: tuple[int, int], smallest_side_pixels: int) -> None:
    """Refuse a picture whose shorter side is too short.

    Raises:
        ImageError: It is.
    """
    if min(size) < smallest_side_pixels:
        raise ImageError(
            f"{size[0]} x {size[1]} pixels; its shorter side is below "
            f"annotate.smallest_side_pixels, {smallest_side_pixels}"
        )


def png(pixels: Pixels) -> bytes:
    """Return the PNG file of ``pixels``, ``[H, W, 3]``."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _looked_at(
    path: Path,
    largest_pixels: int,
    look: Callable[[Image.Image], Seen],
    *,
    header: bool = False,
) -> Seen:
    """What ``look`` finds in the opened picture; whatever goes wrong has one reason.

    Where metadata spoil the picture, a second reading does without them.
    """
    try:
        if path.stat().st_size == 0:
            raise ImageError("the file is empty (0 bytes); copy it again from its source")
        failures: list[Exception] = []
        for source in image_files.readings(path, header=header):
            try:
                with (
                    _our_limit(largest_pixels),
                    Image.open(source, formats=FORMATS) as image,
                ):
                    _refuse_if_large(image.size, largest_pixels)
                    return look(image)
            except (ImageError, Image.DecompressionBombError, MemoryError):
                raise
            # On damaged bytes decoders raise nearly anything, from SyntaxError to struct.error.
            except Exception as error:
                failures.append(error)
        raise _reason(failures[0]) from None
    except Image.DecompressionBombError:
        raise ImageError(
            "its header declares more than twice the pixels of annotate.largest_pixels, "
            f"{largest_pixels}; scale it down or raise the limit"
        ) from None
    except MemoryError:
        raise ImageError(
            "there is not enough memory to decode it; scale it down, or lower "
            f"annotate.largest_pixels, {largest_pixels}"
        ) from None
    except OSError as error:
        raise _reason(error) from None


@contextlib.contextmanager
def _our_limit(largest_pixels: int) -> Iterator[None]:
    """Let Pillow, whose own limit is one for all programs, give up only beyond ours."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = largest_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata, and sizes, which are judged here
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _reason(error: Exception) -> ImageError:
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"not a picture that can be read ({', '.join(FORMATS)})")
    if isinstance(error, OSError) and error.errno is not None:
        return ImageError(f"cannot be opened: {error.strerror}")
    return ImageError(
        f"damaged, cannot be decoded ({_one_line(error)}); copy it again from its source"
    )


def _decoded(image: Image.Image) -> Image.Image:
    """The whole picture, upright, in RGB."""
    for key in ("xmp", "icc_profile"):  # a TIFF's tag may hold anything in their place
        if not isinstance(image.info.get(key), bytes):
            image.info.pop(key, None)
    image.load()
    upright = _UPRIGHT.get(_orientation(image))  # None for a TIFF, which load() turned
    return _rgb(image.copy() if upright is None else image.transpose(upright))


def _upright_size(image: Image.Image) -> Size:
    width, height = image.size
    # Of a TIFF whose own tag turns it, this is the size upright already.
    turned = getattr(image, "tag_v2", {}).get(_ORIENTATION) in _ON_THEIR_SIDE
    on_its_side = _orientation(image) in _ON_THEIR_SIDE
    return (width, height) if on_its_side and not turned else (height, width)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where EXIF is absent, broken, or says anything else."""
    try:
        said = image.getexif().get(_ORIENTATION)
    except Exception:  # of broken EXIF; the pixels are sound all the same
        return 1
    return said if isinstance(said, int) and said in _UPRIGHT else 1


def _refuse_if_large(size: tuple[int, int], largest_pixels: int) -> None:
    width, height = size
    if width * height > largest_pixels:
        raise ImageError(
            f"{width} x {height} pixels are more than annotate.largest_pixels, "
            f"{largest_pixels}; scale it down or raise the limit"
        )


def _rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode in _SIXTEEN_BITS:
        image = _eight_bits(image)
    elif image.has_transparency_data:
        image = _on_white(image)
    elif image.mode in {"P", "1", "YCbCr"}:
        image = image.convert("RGB")
    elif image.mode not in _COLOUR_SPACES:
        raise ImageError(
            f"its pixels are {image.mode!r}, whose range is not known; save it as 8-bit RGB"
        )
    return _srgb(image, profile).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 and turns the picture white.
    values = np.asarray(image).astype(np.float64)
    grey = (values / 257).round().astype(np.uint8)
    grey[values == image.info.get("transparency")] = 255
    return Image.fromarray(grey)


def _on_white(image: Image.Image) -> Image.Image:
    # Pillow makes RGBA of anything but premultiplied grey, of which it would lose the alpha.
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours as the embedded profile means them; without a fitting profile, as they are."""
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _COLOUR_SPACES[image.mode]:
            return image
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image  # viewers show a picture with a broken profile as if it had none
    return cast("Image.Image", converted)  # None only where it converts in place


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
