import gc
import subprocess
import sys

import pytest

from atelier import quick_imports

LATER = """
import sys
from atelier.models import adapters
from atelier.models.families import flux
from diffusers import FlowMatchEulerDiscreteScheduler, LMSDiscreteScheduler
loaded = [name for name in sys.modules if name.startswith(("scipy.optimize", "scipy.linalg"))]
assert not loaded, loaded
assert "scipy.stats._stats_py" not in sys.modules
from transformers.loss import loss_for_object_detection, loss_rt_detr
for loss in (loss_for_object_detection, loss_rt_detr):
    rows, columns = loss.linear_sum_assignment([[3, 1], [1, 3]])
    assert columns.tolist() == [1, 0]
from scipy import integrate
assert integrate.quad(lambda x: 2 * x, 0, 1)[0] == 1
from scipy.stats import betabinom
assert betabinom(3, 1, 1).pmf(1) == 0.25
import scipy.optimize, scipy.stats
assert issubclass(scipy.optimize.OptimizeResult, dict)
assert "scipy.stats._stats_py" in sys.modules
import importlib.metadata as metadata
assert metadata.packages_distributions() is metadata.packages_distributions()
"""
ONCE = """
import builtins, collections, os
read = collections.Counter()
own = builtins.open
def counting(file, *more, **named):
    read[os.fspath(file) if isinstance(file, (str, os.PathLike)) else file] += 1
    return own(file, *more, **named)
builtins.open = counting
from atelier import models
import transformers
import transformers.models
assert "CLIPTextModel" in dir(transformers)
models = {file: count for file, count in read.items() if "modeling_" in str(file)}
assert len(models) > 300, len(models)
assert set(models.values()) == {1}
"""


def test_parts_of_scipy_are_loaded_when_they_are_asked_for_and_packages_listed_once():
    subprocess.run([sys.executable, "-W", "ignore", "-c", LATER], check=True)


def test_transformers_reads_the_files_of_its_models_once():
    subprocess.run([sys.executable, "-W", "ignore", "-c", ONCE], check=True)


def test_the_quick_list_of_packages_says_what_pythons_own_says():
    code = """
import importlib.metadata as metadata
own = metadata.packages_distributions()
from atelier import quick_imports
found = quick_imports.distributions()
assert {"torch", "transformers", "diffusers", "peft", "PIL", "yaml"} <= set(found)
assert found == {name: own[name] for name in found}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_packages_are_found_where_nothing_lists_them(tmp_path):
    folder = tmp_path / "quoted-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: quoted\nVersion: 1.0\n")
    (folder / "RECORD").write_text('"one,two/a.py",,\nthree.py,,\nfour/data.txt,,\n')
    code = """
import sys
from atelier import quick_imports
sys.path = sys.argv[1:]
found = quick_imports.distributions()
assert found == {"one,two": ["quoted"], "three": ["quoted"]}, found
"""
    # In a process of its own: other tests may have changed how distributions are found.
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


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
