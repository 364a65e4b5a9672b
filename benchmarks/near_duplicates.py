"""``python -m benchmarks.near_duplicates FOLDER``: which copies are found at which distance.

Makes copies of real paintings (crops, frames, mirror images, other tones), and prints for each
kind and each ``near_duplicate_bits`` the share that is found, and how far unlike paintings are
apart. docs/split.md has what it printed.
"""

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from atelier import images, parallel
from atelier.criteria import near_duplicates

BITS = (12, 24, 36, 48)
_NO_LIMIT = 2**31  # pixels; these pictures are small
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
Change = Callable[[Image.Image], Image.Image]


def _cropped(picture: Image.Image, *shares: float) -> Image.Image:
    """Without these shares of its sides at left, top, right and bottom."""
    width, height = picture.size
    left, top, right, bottom = shares
    return picture.crop(
        (
            round(width * left),
            round(height * top),
            round(width * (1 - right)),
            round(height * (1 - bottom)),
        )
    )


def _framed(picture: Image.Image, share: float, color: str) -> Image.Image:
    return ImageOps.expand(picture, round(max(picture.size) * share), color)


def _encoded(picture: Image.Image, quality: int, side: int) -> Image.Image:
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _toned(picture: Image.Image) -> Image.Image:
    contrast = ImageEnhance.Contrast(picture).enhance(1.3)
    return ImageEnhance.Brightness(contrast).enhance(0.85)


def _brightened(picture: Image.Image) -> Image.Image:
    return picture.point([round(255 * (value / 255) ** 1.5) for value in range(256)] * 3)


CHANGES: Mapping[str, Change] = {
    "JPEG of quality 60, half the size": lambda picture: _encoded(picture, 60, 256),
    "crop of 1% on each side": lambda picture: _cropped(picture, *[0.01] * 4),
    "crop of 2%": lambda picture: _cropped(picture, *[0.02] * 4),
    "crop of 3%": lambda picture: _cropped(picture, *[0.03] * 4),
    "crop of 5%": lambda picture: _cropped(picture, *[0.05] * 4),
    "crop of 5% at the left": lambda picture: _cropped(picture, 0.05, 0, 0, 0),
    "crop of 3% at a corner": lambda picture: _cropped(picture, 0.03, 0.03, 0, 0),
    "crop of 4, 1, 2 and 3%": lambda picture: _cropped(picture, 0.04, 0.01, 0.02, 0.03),
    "white frame of 2%": lambda picture: _framed(picture, 0.02, "white"),
    "white frame of 5%": lambda picture: _framed(picture, 0.05, "white"),
    "black frame of 5%": lambda picture: _framed(picture, 0.05, "black"),
    "brown frame of 10%": lambda picture: _framed(picture, 0.10, "#6e5032"),
    "mirrored": ImageOps.mirror,
    "mirrored, crop of 2%": lambda picture: _cropped(ImageOps.mirror(picture), *[0.02] * 4),
    "gray": lambda picture: picture.convert("L").convert("RGB"),
    "more contrast, darker": _toned,
    "gamma 1.5": _brightened,
    "turned by 1°": lambda picture: picture.rotate(1, Image.Resampling.BICUBIC),
}


def measure(files: Sequence[Path]) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """Return each copy's distance to its original by kind, and those of unlike paintings."""
    hashes = []
    with parallel.results(_hashed, files, parallel.cores()) as found:
        hashes += found
    every = np.stack(hashes)  # [N, 1 + kinds, V, 4]
    copies = {
        kind: distances(every[:, 0], every[:, place])
        for place, kind in enumerate(CHANGES, start=1)
    }
    unlike = [
        distances(every[:row, 0], every[row : row + 1, 0]) for row in range(1, len(every))
    ]
    return copies, np.sort(np.concatenate(unlike))


def distances(ones: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return how far pictures are apart: the whole of either to any view of the other."""

    def nearest(whole: NDArray[np.uint64], views: NDArray[np.uint64]) -> NDArray[np.int64]:
        apart = np.bitwise_count(whole[:, :1] ^ views).sum(axis=-1)
        return apart.min(axis=1).astype(np.int64)

    return np.minimum(nearest(ones, others), nearest(others, ones))


def _hashed(file: Path) -> NDArray[np.uint64]:
    """Hashes of a painting and of its copies. Runs in a worker."""
    picture = images.read(file, _NO_LIMIT)
    pictures = [picture, *(change(picture) for change in CHANGES.values())]
    return np.stack([near_duplicates.views(one) for one in pictures])


def table(copies: Mapping[str, NDArray[np.int64]], unlike: NDArray[np.int64]) -> str:
    """Return a table in Markdown: shares found, and pairs of unlike paintings taken for one."""
    lines = [
        f"| copy | {' | '.join(f'{bits} bits' for bits in BITS)} |",
        f"|---|{'---|' * len(BITS)}",
    ]
    for kind, apart in copies.items():
        shares = (f"{(apart <= bits).mean():.0%}" for bits in BITS)
        lines.append(f"| {kind} | {' | '.join(shares)} |")
    pairs = (str((unlike <= bits).sum()) for bits in BITS)
    lines.append(f"| pairs of unlike paintings taken for copies | {' | '.join(pairs)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure on the pictures of a folder, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    copies, unlike = measure(files)
    nearest = ", ".join(map(str, unlike[:8]))
    sys.stdout.write(
        f"{table(copies, unlike)}\n{len(files)} paintings; the nearest unlike ones: {nearest}\n"
    )


if __name__ == "__main__":
    main()
