"""How the cost of each stage grows with the pictures: `benchmarks.scale`, fitted."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks import scale
from benchmarks.lines import Goal, Line, Size
from benchmarks.scale import Measured

SECTION = "scale"
_COUNTS: Mapping[Size, Sequence[int]] = {"full": (1_000, 10_000, 100_000), "tiny": (200, 400)}
_CORES = 2
_FLAT = ("annotate", "split")  # stages whose memory should hardly grow
_MOST_BYTES = 128


def lines(size: Size) -> Iterator[Line]:
    """Measure every stage at every count."""
    counts = _COUNTS[size]
    found = scale.run(counts, cores=_CORES)
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


def grown(rows: Sequence[Measured]) -> Iterator[Line]:
    """Yield how each stage's time and memory grow, from the second count to the last."""
    for stage in dict.fromkeys(row.stage for row in rows):
        own = sorted((row for row in rows if row.stage == stage), key=lambda row: row.count)
        few, many = own[1], own[-1]
        between = f"{few.count:,} to {many.count:,}"
        exponent = scale.exponent(few, many)
        yield Line(
            SECTION, f"`{stage}`: exponent of its CPU seconds, {between} pictures",
            exponent, "", "cost in proportion", 1.0, exponent, Goal("ratio", "≤", 1.1),
            note="; ".join(f"{row.count:,}: {row.cpu_seconds:,.3g} s" for row in own),
        )  # fmt: skip
        more = (many.peak_mib - few.peak_mib) * 2**20 / (many.count - few.count)
        yield Line(
            SECTION, f"`{stage}`: memory that a picture more takes, {between} pictures",
            more, "bytes", "64 bits of a hash and an index", 16.0, more / 16,
            Goal("figure", "≤", _MOST_BYTES) if stage in _FLAT else None,
            note="; ".join(f"{row.count:,}: {row.peak_mib:,.0f} MiB" for row in own),
        )  # fmt: skip
