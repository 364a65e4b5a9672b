import subprocess
import sys

import pytest


def run(program, **options):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, **options
    ).stdout.strip()


def test_torchvision_can_be_imported_after_atelier():
    assert run("import atelier, torchvision.transforms; print('imported')") == "imported"


def test_importing_atelier_imports_neither_torch_nor_torchvision():
    heavy = "{'torch', 'torchvision', 'numpy', 'pydantic'} & set(sys.modules)"

    assert run(f"import atelier, sys; print({heavy} or 'light')") == "light"


def test_installing_twice_watches_once():
    program = (
        "import sys; from atelier import torchvision_compat as compat; compat.install(); "
        "print([type(finder).__module__ for finder in sys.meta_path].count(compat.__name__))"
    )

    assert run(program) == "1"


@pytest.mark.parametrize(
    "program",
    ["from diffusers import FluxPipeline", "import torchvision.transforms", "import peft"],
)
def test_a_process_that_never_imports_atelier_itself_can_import(program, tmp_path):
    """torch calls `install` by its entry point, which only an installation has."""
    assert run(f"{program}; print('imported')", cwd=tmp_path) == "imported"


def test_a_torchvision_that_loads_is_left_alone():
    program = (
        "import sys, types; from atelier import torchvision_compat as compat; "
        "sys.modules['torchvision'] = None; compat.install(); "
        "whole = types.ModuleType('torchvision'); "
        "sys.modules |= {'torchvision': whole, 'torchvision.extension': whole}; "
        "compat.install(); print(compat._declared, 'torch' in sys.modules)"
    )

    assert run(program) == "[] False"
