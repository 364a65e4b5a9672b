"""Opening picture files with Pillow, without metadata that makes it fail.

Pillow refuses a whole picture for a wrong checksum of a comment, a text chunk of two megabytes,
or invalid EXIF data. Chunks that affect pixels, colors or orientation are kept.
"""

import io
import os
import re
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_ABOUT = (b"iCCP", b"eXIf")  # color profile and orientation
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTATION_IN_TEXT = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_GREY, _RGB = 0, 2  # color types of PNG that may name one transparent value
# The entry of an AVIF's table of items that says: this one is EXIF.
_EXIF_ITEM = re.compile(rb"(infe[\x02\x03]\0\0.{4,7}?)Exif", re.DOTALL)


def readings(path: Path, *, header: bool = False) -> Iterator[Path | io.BytesIO]:
    """Yield what to give to Pillow, one after the other until it can read the picture.

    Args:
        path: The picture.
        header: Only what stands before the pixels is wanted.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(16)
        if head.startswith(_PNG):
            yield io.BytesIO(_png(file, (*_PIXELS, *_ABOUT, *_TEXTS), header))
            yield io.BytesIO(_png(file, _PIXELS, header))
            return
        yield path
        if head[4:12] in {b"ftypavif", b"ftypavis", b"ftypmif1"}:
            yield io.BytesIO(_EXIF_ITEM.sub(rb"\1skip", head + file.read()))


def _png(file: BinaryIO, kept: Collection[bytes], header: bool) -> bytes:
    """The file with the chunks of ``kept`` alone, transparency as Pillow's modes count it.

    An animation's other frames go, too. A torn chunk is left as it is.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(len(_PNG))
    parts, about = [_PNG], b""
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        if header and kind == b"IDAT":
            return b"".join([*parts, start])
        if kind not in kept:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        rest = file.read(min(length + 4, size - file.tell()))
        if kind == b"IHDR":
            about = rest
        if kind == b"tRNS":
            parts.append(_chunk(kind, _transparent(rest[:-4], about)))
        elif kind in _PIXELS or _is_sound(kind, start, rest):
            parts += [start, rest]
    return b"".join(parts)


def _is_sound(kind: bytes, start: bytes, rest: bytes) -> bool:
    if kind in _TEXTS and not rest.startswith(_ORIENTATION_IN_TEXT):
        return False
    return start + rest == _chunk(kind, rest[:-4])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )


def _transparent(body: bytes, header: bytes) -> bytes:
    """The transparent value in the range of the pixels that Pillow makes.

    It spreads grey of 2 and 4 bits over 0 to 255, and keeps the upper half of RGB of 16 bits;
    the values in ``tRNS`` it leaves as they are, so that none would be found.
    """
    if len(header) < 10 or len(body) % 2:
        return body
    depth, color = header[8], header[9]
    values = struct.unpack(f">{len(body) // 2}H", body)
    if color == _GREY and depth in {2, 4}:
        most = 2**depth - 1
        values = tuple((one & most) * 255 // most for one in values)
    elif color == _RGB and depth == 16:
        values = tuple(one >> 8 for one in values)
    else:
        return body
    return struct.pack(f">{len(values)}H", *values)
