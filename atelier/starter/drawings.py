"""Starter drawings: pictures from a seed, with known attributes of each criterion.

There are six subjects in six main hues; the caption names only these two. It does not name the
poles of seven attribute pairs, which are drawn so that ``atelier.annotators.measured`` can read
them back from the pixels.

There are two data sets: the *sketchbook*, on which the starter base is trained, shows every
pole equally often; the *paintings* in ``data/`` are good but imperfect.

A drawing is a function of (seed, index) alone: float64 arithmetic, rounded at the end, and only
``random()`` of numpy's generator, whose stream has not changed between releases. Its entropy is
low on purpose, so that a small network learns it in minutes: a few layouts, little jitter,
brush marks from a small fixed bank, no white noise.

Colors are OKLab (Ottosson 2020): lightness in [0, 1], chroma and hue in its polar form.
Distances are signed, in pixels, positive inside a shape.
"""

import functools
import struct
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]
Pole = Literal["positive", "negative"]
Choice = TypeVar("Choice")

PIXELS = 128
PAINTINGS = 1500  # pinned by data.dvc, as is the seed
PAINTINGS_SEED = 2601
GOOD_SHARE = 0.8  # of the poles in the paintings

# Name: hue angle in degrees, chroma, lightness added (a dark yellow is brown).
HUES: dict[str, tuple[float, float, float]] = {
    "red": (24.0, 0.165, -0.02),
    "orange": (57.0, 0.150, 0.02),
    "yellow": (97.0, 0.150, 0.07),
    "green": (147.0, 0.140, 0.0),
    "blue": (254.0, 0.145, 0.0),
    "violet": (307.0, 0.155, -0.01),
}
HARMONIOUS = (22.0, -22.0)  # degrees from the main hue: neighbours
CLASHING = (85.0, -130.0)  # unrelated hues, in none of Itten's regular figures

CRITERIA = (
    "color/harmony",
    "light/contrast",
    "space/depth",
    "composition/balance",
    "composition/focus",
    "brushwork/edges",
    "brushwork/strokes",
)
_MARKS = 4  # textures in the bank of each flow
_Y, _X = np.mgrid[0:PIXELS, 0:PIXELS].astype(np.float64)


@dataclass(frozen=True)
class Drawing:
    """A picture and what its painter knows; only ``pixels`` and ``caption`` may reach a stage.

    Attributes:
        pixels: RGB, uint8 ``[128, 128, 3]``.
        caption: Subject and main hue, as "a landscape in blue".
        subject: Key of ``SUBJECTS``.
        poles: The painted pole of each criterion that applies to the subject.
    """

    pixels: NDArray[np.uint8]
    caption: str
    subject: str
    poles: dict[str, Pole]


def sketchbook(count: int, seed: int) -> Iterator[Drawing]:
    """Draw what the starter base learns from: each pole equally likely."""
    return (_draw(np.random.default_rng([seed, 0, index]), 0.5) for index in range(count))


def paintings(count: int, seed: int) -> Iterator[Drawing]:
    """Draw what lies in ``data/``: each pole is the good one with probability 0.8."""
    return (
        _draw(np.random.default_rng([seed, 1, index]), GOOD_SHARE) for index in range(count)
    )


def study(subject: str, hue: str, *, bad: Collection[str] = ()) -> Drawing:
    """Draw one subject with every pole good but those named; for figures and tests."""
    good = {criterion: criterion not in bad for criterion in CRITERIA}
    return _paint(subject, _Plan(hue, good, layout=0, mirrored=False, mark=0, shift=(0.0, 0.0)))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return RGB ``[H, W, 3]`` as a PNG whose bytes depend on the pixels alone.

    The deflate stream holds stored blocks (RFC 1951, 3.2.4), so no zlib release can change it.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # filter type 0 before each row
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body)
        for kind, body in (
            (b"IHDR", header),
            (b"IDAT", _stored(rows.tobytes())),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk: length, kind, body, checksum."""
    return (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of uncompressed blocks of at most 65,535 bytes."""
    parts = [data[start : start + 65535] for start in range(0, len(data), 65535)] or [b""]
    blocks = [
        struct.pack("<BHH", part is parts[-1], len(part), len(part) ^ 0xFFFF) + part
        for part in parts
    ]
    return b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(data))


# What one drawing has decided before the first stroke.


@dataclass(frozen=True)
class _Plan:
    """Every decision of a drawing; what is painted follows from it."""

    hue: str
    good: dict[str, bool]
    layout: int  # 0 or 1
    mirrored: bool
    mark: int  # which texture of the bank
    shift: tuple[float, float]  # pixels, across and down


def _draw(rng: np.random.Generator, good_share: float) -> Drawing:
    subject = _pick(rng, list(SUBJECTS))
    plan = _Plan(
        hue=_pick(rng, list(HUES)),
        good={criterion: bool(rng.random() < good_share) for criterion in CRITERIA},
        layout=_pick(rng, [0, 1]),
        mirrored=_pick(rng, [False, True]),
        mark=_pick(rng, list(range(_MARKS))),
        shift=(8 * rng.random() - 4, 6 * rng.random() - 3),
    )
    return _paint(subject, plan)


def _paint(subject: str, plan: _Plan) -> Drawing:
    article, scene = SUBJECTS[subject]
    easel = _Easel(plan)
    scene(easel)
    easel.scatter()
    return Drawing(
        pixels=easel.pixels(),
        caption=f"{article} {subject} in {plan.hue}",
        subject=subject,
        poles={
            criterion: "positive" if plan.good[criterion] else "negative"
            for criterion in CRITERIA
            if criterion != "space/depth" or subject in WITH_DEPTH
        },
    )


def _pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    return choices[int(rng.random() * len(choices))]


# Strokes: a small bank of textures in [-1, 1].


_FLOWS: dict[str, Callable[[Array, Array], Array]] = {
    "swirl": lambda x, y: y + 9 * _wave(x / 84) * _wave((y - 1) / 76),
    "hill": lambda x, y: y + 9 * _wave((x + 0.5 * y) / 96),
    "wave": lambda x, y: y + 2.5 * _wave((x + 1.2 * y) / 44),
    "upright": lambda x, y: x + 2.5 * _wave(y / 56),
    "round": lambda x, y: _distance(x - PIXELS / 2, y - PIXELS / 2),
}  # stream functions, whose level lines the strokes follow


def _wave(turns: Array) -> Array:
    return np.asarray(np.sin(2 * np.pi * turns))


def _distance(across: Array, down: Array) -> Array:
    return np.asarray(np.hypot(across, down))


@functools.cache
def _strokes(flow: str, mark: int) -> Array:
    """Wavy strokes along a flow: line integral convolution of smooth noise.

    References:
        Cabral and Leedom, Imaging Vector Fields Using Line Integral Convolution, 1993.
    """
    noise = (
        np.random.default_rng([mark, len(flow), ord(flow[0])]).random((PIXELS, PIXELS)) - 0.5
    )
    noise = ndimage.gaussian_filter(noise, 1.3, mode="wrap")
    slope_y, slope_x = np.gradient(_FLOWS[flow](_X, _Y))
    length = np.hypot(slope_x, slope_y) + 1e-9
    along_x, along_y = slope_y / length, -slope_x / length
    total = noise.copy()
    for sense in (1.0, -1.0):
        x, y = _X.copy(), _Y.copy()
        for _ in range(12):
            step_x = ndimage.map_coordinates(along_x, [y, x], order=1, mode="grid-wrap")
            step_y = ndimage.map_coordinates(along_y, [y, x], order=1, mode="grid-wrap")
            x, y = x + sense * step_x, y + sense * step_y
            total += ndimage.map_coordinates(noise, [y, x], order=1, mode="grid-wrap")
    return np.asarray(np.tanh(1.1 * total / total.std()))


@functools.cache
def _blocks(mark: int) -> Array:
    """Blocky marks: the cells of a jittered grid, each of its own value."""
    cell, across = 11.0, 13
    jitter = np.random.default_rng([mark, 7]).random((3, across, across))
    best = np.full((PIXELS, PIXELS), np.inf)
    value = np.zeros((PIXELS, PIXELS))
    for row, column in np.ndindex(across, across):
        x = cell * (column - 0.5 + 1.0 * jitter[0, row, column])
        y = cell * (row - 0.5 + 1.0 * jitter[1, row, column])
        distance = (_X - x) ** 2 + (_Y - y) ** 2
        value = np.where(distance < best, 2 * jitter[2, row, column] - 1, value)
        best = np.minimum(best, distance)
    return np.asarray(1.3 * ndimage.gaussian_filter(value, 0.8))


# The easel: layers of colour, each with its strokes.


class _Easel:
    """A canvas in OKLab on which a plan's decisions turn into colour."""

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self.good = plan.good
        self.lab = np.zeros((3, PIXELS, PIXELS))
        # Scenes are composed for the left; a mirrored plan sees them from the other side.
        self.x = (PIXELS - 1 - _X if plan.mirrored else _X) - plan.shift[0]
        self.y = _Y - plan.shift[1]

    def lay(
        self,
        distance: Array | float,
        light: Array | float,
        chroma: float,
        *,
        role: int = 0,
        flow: str = "swirl",
        centre: tuple[float, float] | None = None,
    ) -> None:
        """Lay one shape over what is there.

        Args:
            distance: Signed distance to the shape's edge.
            light: OKLab lightness before the plan's value structure.
            chroma: Share of the hue's full chroma.
            role: 0 the main hue, 1 and 2 its companions in the palette.
            flow: Where its strokes run.
            centre: What round strokes run around, in the scene's coordinates.
        """
        softness = 0.45 if self.good["brushwork/edges"] else 3.2
        cover = 0.5 + 0.5 * np.tanh(np.asarray(distance) / (2 * softness))
        marks = self._marks(flow, centre)
        angle, full, lift = HUES[self.plan.hue]
        palette = HARMONIOUS if self.good["color/harmony"] else CLASHING
        turn = np.deg2rad(angle + (0.0, *palette)[role])
        strength, swing = full * chroma, 0.12 * marks  # broken colour: the hue swings by 7°
        colour = (
            light + lift + 0.075 * marks,
            strength * (np.cos(turn) - swing * np.sin(turn)),
            strength * (np.sin(turn) + swing * np.cos(turn)),
        )
        for channel, value in zip(self.lab, colour, strict=True):
            channel += cover * (value - channel)

    def _marks(self, flow: str, centre: tuple[float, float] | None) -> Array:
        """The strokes of one layer, in [-1, 1]."""
        if not self.good["brushwork/strokes"]:
            return _blocks(self.plan.mark)
        marks = _strokes(flow, self.plan.mark)
        if centre is None:
            return marks
        x = centre[0] + self.plan.shift[0]
        x = PIXELS - 1 - x if self.plan.mirrored else x
        y = centre[1] + self.plan.shift[1]
        return np.roll(marks, (round(y) - PIXELS // 2, round(x) - PIXELS // 2), axis=(0, 1))

    def recede(self, nearness: float, order: int) -> tuple[float, float]:
        """Light and chroma of a ground layer: pale with distance, or all alike."""
        if self.good["space/depth"]:
            return 0.71 - 0.40 * nearness, 0.55 + 0.45 * nearness
        return (0.36, 0.43)[order % 2], 0.9

    def accent(self, x: float, y: float, radius: float, *, petals: int = 0) -> None:
        """The one lightest light, which leads the eye; nothing where lights are scattered."""
        if self.good["composition/focus"]:
            across, down = self.x - x, self.y - y
            crisp = petals if self.good["brushwork/edges"] else 0  # blurred petals are a disk
            wave = 0.16 * np.sin(crisp * np.arctan2(down, across))
            rim = radius * (1 + wave) - np.hypot(across, down)
            self.lay(rim, 0.97, 0.30, flow="round", centre=(x, y))

    def sun(self, x: float, y: float) -> None:
        """The accent of a sky, in a halo of strokes."""
        if self.good["composition/focus"]:
            self.lay(self.disk(x, y, 19), 0.80, 0.75, flow="round", centre=(x, y))
        self.accent(x, y, 9)

    def scatter(self) -> None:
        """Lights that scatter the eye, where no accent leads it; over everything."""
        if not self.good["composition/focus"]:
            for x, y in _SCATTERED[self.plan.layout]:
                self.lay(self.disk(x, y, 4.8), 0.97, 0.30, flow="round", centre=(x, y))

    def below(self, curve: Array | float) -> Array:
        """Distance to the region under a curve y(x)."""
        return np.asarray(self.y - curve) * 0.9

    def disk(self, x: float, y: float, radius: float) -> Array:
        """Distance to a disk."""
        return np.asarray(radius - np.hypot(self.x - x, self.y - y))

    def oval(self, x: float, y: float, wide: float, high: float, turn: float = 0.0) -> Array:
        """Distance to an ellipse of half axes ``wide`` and ``high``, turned by radians."""
        across, down = self.x - x, self.y - y
        u = (across * np.cos(turn) + down * np.sin(turn)) / wide
        v = (down * np.cos(turn) - across * np.sin(turn)) / high
        reach = np.hypot(u, v)
        steepness = np.hypot(u / wide, v / high) / np.maximum(reach, 1e-6)
        return np.asarray((1 - reach) / np.maximum(steepness, 1e-6))

    def box(self, left: float, top: float, right: float, bottom: float) -> Array:
        """Distance to an upright rectangle."""
        sides = (self.x - left, right - self.x, self.y - top, bottom - self.y)
        return np.asarray(np.minimum.reduce(sides))

    def triangle(self, *corners: tuple[float, float]) -> Array:
        """Distance to a triangle whose corners run clockwise on the picture."""
        sides = []
        for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
            length = float(np.hypot(x1 - x0, y1 - y0))
            cross = (x1 - x0) * (self.y - y0) - (y1 - y0) * (self.x - x0)
            sides.append(cross / length)
        return np.asarray(np.minimum.reduce(sides))

    def pixels(self) -> NDArray[np.uint8]:
        """The finished picture in sRGB, uint8 ``[H, W, 3]``."""
        light, a, b = self.lab
        if not self.good["light/contrast"]:
            light, a, b = 0.56 + 0.34 * (light - 0.56), 0.85 * a, 0.85 * b
        return _srgb(light, a, b)


def _srgb(light: Array, a: Array, b: Array) -> NDArray[np.uint8]:
    """OKLab to 8-bit sRGB (Ottosson, A perceptual color space for image processing, 2020)."""
    long, middle, short = (
        root * root * root
        for root in (
            light + 0.3963377774 * a + 0.2158037573 * b,
            light - 0.1055613458 * a - 0.0638541728 * b,
            light - 0.0894841775 * a - 1.2914855480 * b,
        )
    )
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    encoded = np.where(
        linear <= 0.0031308,
        12.92 * linear,
        1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055,
    )
    return np.asarray(np.rint(255 * encoded), np.uint8)


_SCATTERED = (
    ((18, 22), (50, 40), (82, 16), (112, 36), (30, 84), (70, 72), (102, 98)),
    ((14, 40), (44, 14), (76, 34), (110, 20), (26, 100), (60, 90), (100, 74)),
)


# The scenes.


def _landscape(easel: _Easel) -> None:
    easel.lay(99.0, 0.76 - 0.0016 * (80 - easel.y).clip(0), 0.8, flow="swirl")
    balanced = easel.good["composition/balance"]
    easel.sun((74 if easel.plan.layout else 56) if balanced else 34, 24)
    ridges = ((52, 6, 74, 0.0), (70, 6, 90, 2.2), (88, 5, 110, 4.0), (106, 5, 80, 1.0))
    for order, (base, rise, period, phase) in enumerate(ridges):
        light, chroma = easel.recede(order / 3, order)
        curve = base + rise * np.sin(2 * np.pi * easel.x / period + phase + easel.plan.layout)
        inside = easel.below(curve)
        ridge_light = light + 0.05 * np.exp(-inside.clip(0) / 6)
        easel.lay(inside, ridge_light, chroma, role=(0, 1, 0, 2)[order], flow="hill")
    trees = (
        ((18, 83, 8, 30), (108, 80, 8, 32)) if balanced else ((13, 72, 11, 42), (37, 88, 9, 28))
    )
    for x, y, wide, high in trees:
        easel.lay(easel.oval(x, y, wide, high), 0.22, 0.75, role=1, flow="upright")


def _seascape(easel: _Easel) -> None:
    easel.lay(99.0, 0.77 - 0.0018 * (60 - easel.y).clip(0), 0.7, flow="swirl")
    easel.sun(96 if easel.plan.layout else 34, 22)
    for order, base in enumerate((54, 72, 92, 112)):
        light, chroma = easel.recede(order / 3, order)
        curve = base + (0, 1.5, 3, 4)[order] * np.sin(2 * np.pi * easel.x / (30 + 8 * order))
        inside = easel.below(curve)
        crest = light + 0.06 * np.exp(-inside.clip(0) / 3) * (order > 0)
        easel.lay(inside, crest, chroma, role=(0, 2, 0, 0)[order], flow="wave")
    if easel.good["composition/balance"]:
        _boat(easel, 64, 84, 1.0)
    else:
        rock = easel.oval(6, 62, 30, 34)
        easel.lay(rock, 0.30, 0.6, role=2, flow="upright")
        _boat(easel, 34, 88, 0.8)


def _boat(easel: _Easel, x: float, y: float, scale: float) -> None:
    hull = np.minimum(easel.oval(x, y, 24 * scale, 13 * scale), easel.y - y)
    main = easel.triangle((x + 1, y - 46 * scale), (x + 22 * scale, y - 4), (x + 1, y - 4))
    jib = easel.triangle((x - 2, y - 38 * scale), (x - 2, y - 4), (x - 16 * scale, y - 4))
    easel.lay(main, 0.40, 1.0, role=1, flow="upright")
    easel.lay(jib, 0.50, 1.0, role=2, flow="upright")
    easel.lay(hull, 0.22, 0.7, role=1, flow="wave")


def _city(easel: _Easel) -> None:
    easel.lay(99.0, 0.77 - 0.0016 * (70 - easel.y).clip(0), 0.75, flow="swirl")
    easel.sun(96 if easel.plan.layout else 34, 20)
    peak = 64.0 if easel.good["composition/balance"] else 18.0
    for order, (base, tall, block) in enumerate(((62, 24, 15), (84, 34, 19), (106, 30, 24))):
        light, chroma = easel.recede(order / 2, order)
        inside = np.full((PIXELS, PIXELS), -99.0)
        for number in range(-2, 11):
            left = block * number + 5.0 * order - 6
            near = np.exp(-(((left + block / 2 - peak) / 26) ** 2))
            wobble = ((number * 7 + order * 5 + 3 * easel.plan.layout) % 4) * 2.5
            roof = base - tall * near - wobble
            inside = np.maximum(inside, easel.box(left, roof, left + block + 1, 140))
        shade = light + 0.06 * ((easel.x + 3 * order) // block % 2) - 0.03
        easel.lay(inside, shade, chroma, role=(0, 1, 2)[order], flow="upright")


def _still_life(easel: _Easel) -> None:
    easel.lay(99.0, 0.46 + 0.05 * np.exp(-(((easel.x - 40) / 50) ** 2)), 0.8, flow="swirl")
    easel.lay(easel.below(86.0), 0.66, 0.6, role=0, flow="wave")
    off = 0.0 if easel.good["composition/balance"] else -34.0
    x = 64 + off
    easel.lay(easel.oval(x + 4, 104, 30, 5), 0.48, 0.6, flow="wave")
    side = 0.10 * np.tanh((x - easel.x) / 10)
    neck = easel.box(x - 7, 40, x + 7, 70)
    vase = np.maximum(neck, easel.oval(x, 80, 19, 25))
    lip = easel.oval(x, 41, 11, 4)
    easel.lay(np.maximum(vase, lip), 0.30 + side, 0.9, role=1, flow="round", centre=(x, 80))
    if easel.good["composition/balance"]:
        fruits = ((32, 98, 12), (96, 98, 12), (110, 104, 9))
    else:
        fruits = ((18, 104, 11), (50, 100, 12), (8, 98, 10))
    for order, (fruit_x, y, radius) in enumerate(fruits):
        shape = easel.disk(fruit_x, y, radius)
        light = 0.50 + 0.10 * np.tanh((fruit_x - easel.x + y - easel.y) / 12)
        easel.lay(shape, light, 1.0, role=(2, 1, 0)[order], flow="round", centre=(fruit_x, y))
    for lean in (-1, 1):
        leaf = easel.oval(x + 13 * lean, 28, 5, 15, 0.7 * lean)
        easel.lay(leaf, 0.36, 1.0, role=2, flow="upright")
    easel.accent(x, 26, 12, petals=6)


def _portrait(easel: _Easel) -> None:
    easel.lay(99.0, 0.56 + 0.0008 * (easel.y - 64), 0.7, flow="swirl")
    x = 64 + (0.0 if easel.good["composition/balance"] else -36.0)
    easel.lay(easel.oval(x, 132, 31, 40), 0.30, 0.9, role=1, flow="hill")
    easel.lay(easel.oval(x, 52, 27, 34), 0.24, 0.6, role=2, flow="upright")
    easel.lay(easel.box(x - 9, 70, x + 9, 100), 0.62, 0.7, flow="upright")
    turned = 0.06 * np.tanh((x - easel.x) / 9)
    easel.lay(easel.oval(x, 60, 20, 27), 0.70 + turned, 0.6, flow="round", centre=(x, 60))
    easel.lay(
        np.minimum(easel.oval(x, 40, 23, 17), 44 - easel.y), 0.24, 0.6, role=2, flow="upright"
    )
    for eye in (x - 8, x + 8):
        easel.lay(easel.oval(eye, 58, 3.6, 2.2), 0.28, 0.5, role=2)
    easel.lay(easel.oval(x, 75, 6, 2.4), 0.46, 1.0)
    easel.accent(x - 22, 34, 10, petals=6)


def _abstract(easel: _Easel) -> None:
    easel.lay(99.0, 0.62, 0.6, flow="swirl")
    off = 0.0 if easel.good["composition/balance"] else -34.0
    x = 64 + off
    bar = 9 - np.abs((easel.x - x) * 0.6 + (easel.y - 64) * 0.8)
    easel.lay(np.minimum(bar, 58 - np.abs(easel.x - x)), 0.44, 0.9, role=1, flow="hill")
    easel.lay(easel.disk(x, 64, 34), 0.34, 0.9, flow="round", centre=(x, 64))
    easel.lay(easel.disk(x, 64, 22), 0.54, 1.0, role=2, flow="round", centre=(x, 64))
    easel.lay(
        easel.triangle((x - 4, 86), (x + 26, 112), (x - 30, 116)),
        0.26,
        0.8,
        role=1,
        flow="hill",
    )
    easel.accent(x + 4, 60, 9)


SUBJECTS: dict[str, tuple[str, Callable[[_Easel], None]]] = {
    "landscape": ("a", _landscape),
    "seascape": ("a", _seascape),
    "city": ("a", _city),
    "still life": ("a", _still_life),
    "portrait": ("a", _portrait),
    "abstract": ("an", _abstract),
}
WITH_DEPTH = ("landscape", "seascape", "city")
