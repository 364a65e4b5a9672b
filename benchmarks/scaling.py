"""How the cost of each stage grows with the pictures: `benchmarks.scale`, fitted and drawn."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import scale
from benchmarks.lines import Goal, Line, Size
from benchmarks.scale import Measured

SECTION = "scale"
DRAWING = Path(__file__).parents[1] / "docs" / "scale.png"
SHOWN = f"\n![seconds and memory of each stage over the pictures]({DRAWING.name})\n"
_COUNTS: Mapping[Size, Sequence[int]] = {"full": (1_000, 10_000, 100_000), "tiny": (200, 400)}
_CORES = 2


def lines(size: Size) -> Iterator[Line]:
    """Measure every stage at every count; at full size, draw them too."""
    counts = _COUNTS[size]
    found = scale.run(counts, cores=_CORES)
    if size == "full":
        scale.plot(found, DRAWING)
    for stage in dict.fromkeys(row.stage for row in found):
        own = sorted((row for row in found if row.stage == stage), key=lambda row: row.count)
        told = "; ".join(
            f"{row.count:,}: {row.cpu_seconds:.3g} s, {row.peak_mib:,.0f} MiB at most"
            for row in own
        )
        exponent = fitted(own)
        yield Line(
            SECTION, f"`{stage}`: exponent of its CPU seconds over the pictures, fitted",
            exponent, "", "cost in proportion", 1.0, exponent, Goal("ratio", "≤", 1.05),
            note=told,
        )  # fmt: skip


def fitted(rows: Sequence[Measured]) -> float:
    """Return the slope of a line through the logarithms of counts and CPU seconds."""
    counts, seconds = (
        [getattr(row, name) for row in rows] for name in ("count", "cpu_seconds")
    )
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])
