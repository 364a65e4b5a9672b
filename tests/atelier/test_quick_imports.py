import subprocess
import sys

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
