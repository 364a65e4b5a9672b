"""Image grids: pictures of several models side by side, with names."""

import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from atelier.images import Pixels

_GAP = 6  # pixels between pictures
_SMALLEST = 12  # of the lettering, in pixels


def labelled(rows: Mapping[str, Sequence[Pixels]], columns: Sequence[str]) -> Image.Image:
    """Return one picture: a row for each name, a column for each heading.

    Lettering grows with the pictures; long names and headings are broken into lines.

    Args:
        rows: Pictures ``[H, W, 3]`` by the row's name, all of one size, one a column.
        columns: What stands above each column.
    """
    height, width = next(iter(rows.values()))[0].shape[:2]
    font = _font(max(_SMALLEST, round(width / 14)))
    letters = max(8, round(width / (0.55 * font.size)))
    names = {name: _broken(name, letters) for name in rows}
    headings = [_broken(heading, letters) for heading in columns]
    left = max(_extent(text, font)[0] for text in names.values()) + 2 * _GAP
    above = max(_extent(text, font)[1] for text in headings) + 2 * _GAP
    size = (left + len(columns) * (width + _GAP), above + len(rows) * (height + _GAP))
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    for place, heading in enumerate(headings):
        middle = left + place * (width + _GAP) + width // 2
        draw.multiline_text(
            (middle, above - _GAP), heading, "black", font, anchor="md", align="center"
        )
    for place, (name, pictures) in enumerate(rows.items()):
        top = above + place * (height + _GAP)
        draw.multiline_text(
            (left - _GAP, top + height // 2), names[name], "black", font,
            anchor="rm", align="right",
        )  # fmt: skip
        for column, picture in enumerate(pictures):
            grid.paste(Image.fromarray(picture), (left + column * (width + _GAP), top))
    return grid


def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font with Greek letters; Pillow's own has none."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _broken(text: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(text, letters)) or " "


def _extent(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font)
    return round(box[2] - box[0]), round(box[3] - box[1])
