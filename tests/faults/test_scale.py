"""Eight times the pictures: no more than so much more work, and the same memory."""

import importlib.util
import sys

import pytest

from tests.faults import workshop

COUNTS = (500, 4_000)
STEEPEST = 1.3  # of the line through the logarithms of counts and CPU seconds
MORE_MIB = 200.0


@pytest.fixture
def scale():
    """``benchmarks.scale``: some package of the environment installs a `benchmarks`, too."""
    file = workshop.ROOT / "benchmarks/scale.py"
    spec = importlib.util.spec_from_file_location("scale", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(900)
def test_stages_that_touch_every_picture_grow_in_proportion(scale, figure):
    found = scale.run(COUNTS, cores=1)

    for stage in scale.STAGES:
        few, many = (row for row in found if row.stage == stage)
        steepness = scale.exponent(few, many)
        assert steepness < STEEPEST, stage
        assert many.peak_mib - few.peak_mib < MORE_MIB, stage
        figure(
            "Scale",
            f"`{stage}` of {COUNTS[0]:,}, then {COUNTS[1]:,} recorded pictures",
            len(COUNTS),
            f"CPU seconds grow by the pictures to the power of {steepness:.2f}; "
            f"{few.peak_mib:,.0f}, then {many.peak_mib:,.0f} MiB at most",
        )
