import gc
import subprocess
import sys

import pytest

from atelier import quick_imports

LATER = """
import sys
from atelier.models import denoiser
from diffusers import FlowMatchEulerDiscreteScheduler
assert "scipy.stats._stats_py" not in sys.modules
from scipy.stats import betabinom
assert betabinom(3, 1, 1).pmf(1) == 0.25
assert "scipy.stats._stats_py" in sys.modules
import importlib.metadata as metadata
assert metadata.packages_distributions() is metadata.packages_distributions()
"""


def test_scipys_statistics_are_loaded_when_they_are_asked_for_and_packages_listed_once():
    subprocess.run([sys.executable, "-W", "ignore", "-c", LATER], check=True)


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_rests_inside_and_passes_over_what_was_made_there(collecting):
    (gc.enable if collecting else gc.disable)()
    before = gc.get_freeze_count()
    try:
        with quick_imports.uncollected():
            made = [[] for _ in range(1000)]
            assert not gc.isenabled()

        assert gc.isenabled() == collecting
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()
        gc.enable()
