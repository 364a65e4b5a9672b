"""Pictures as people have them: read upright in RGB, or refused with a one-sentence reason."""

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from atelier.errors import ImageError

Pixels = NDArray[np.uint8]  # [H, W, 3], RGB

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata; and bombs, which are judged here
        image, orientation = _decode(path, largest_pixels)
        upright = _UPRIGHT.get(orientation)
        return _rgb(image if upright is None else image.transpose(upright))


def square(image: Image.Image, pixels: int) -> Pixels:
    """Return the middle square of an RGB picture at ``pixels`` a side, uint8 ``[H, W, 3]``."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.array(image.resize((pixels, pixels), Image.Resampling.LANCZOS, box=box))


def png(pixels: Pixels) -> bytes:
    """Return the PNG file of ``pixels``, ``[H, W, 3]``."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _decode(path: Path, largest_pixels: int) -> tuple[Image.Image, Any]:
    """Pixels as stored, and the EXIF orientation."""
    try:
        if path.stat().st_size == 0:
            raise ImageError("the file is empty (0 bytes); copy it again from its source")
        with Image.open(path, formats=FORMATS) as image:
            _refuse_if_large(image.size, largest_pixels)
            image.load()
            return image.copy(), image.getexif().get(_ORIENTATION)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not a picture that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"its header promises too many pixels: {_one_line(error)}") from None
    # On damaged bytes decoders raise nearly anything, from SyntaxError to struct.error.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"cannot be opened: {error.strerror}") from None
        raise ImageError(
            f"damaged, cannot be decoded ({_one_line(error)}); copy it again from its source"
        ) from None


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
    return Image.fromarray((values / 257).round().astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
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
