import subprocess
import sys


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
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
