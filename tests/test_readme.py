"""Commands of README.md, typed in a fresh clone; its program for diffusers: test_examples."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`((?:atelier|dvc|git|make|pip|python) [^`]+)`")
DEMO = "git clone <address of this repository> atelier && cd atelier && make demo"
SETTINGS = "atelier settings explain cpo.objectives"
TYPED = {DEMO, SETTINGS, "make test", "make site"}


def commands(text):
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return {*lines, *QUOTED.findall(text)}


@pytest.fixture
def clone(tmp_path):
    """A fresh clone whose virtual environment is this one, and a function that types there."""
    words = DEMO.partition(" && ")[0].replace("<address of this repository>", str(ROOT))
    if subprocess.run(words, shell=True, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("this is no git repository")
    home = tmp_path / "atelier"
    (home / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        if (Path(sys.prefix) / name).exists():
            (home / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    for name in ("installed", "installed-docs"):  # later than pyproject.toml: make leaves it
        (home / ".venv" / name).touch()
    path = os.pathsep.join([str(home / ".venv/bin"), os.environ["PATH"]])
    more = {"PATH": path, "PYTHONPATH": str(home), "COLUMNS": "120", "MAKEFLAGS": ""}

    def type_in(command, seconds=60):
        done = subprocess.run(
            command, shell=True, cwd=home, env=os.environ | more, text=True, timeout=seconds,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout[-4000:]}"
        return done.stdout

    return type_in


def test_no_command_is_left_out_here():
    assert commands(README) == TYPED
    assert commands("```\ndvc repro\n```\n`make up` and `README.md`") == {
        "dvc repro",
        "make up",
    }


def test_a_setting_is_explained(clone):
    assert "cpo-s" in clone(SETTINGS)
    clone("python -c 'import typer'")  # as stages are started


@pytest.mark.parametrize(
    ("command", "runs"),
    [
        ("make demo", ["atelier data", "dvc repro", "atelier results"]),
        ("make test", ["mypy", 'pytest -m "not slow"', "make numerics"]),
        ("make site", ["mkdocs build --strict", "pytest -q tests/docs/pages.py"]),
    ],
)
def test_make_would_run_what_the_readme_promises(clone, command, runs):
    lines = clone(f"{command} --dry-run").splitlines()

    assert any("pip install" in line for line in lines) is False
    places = [next(n for n, line in enumerate(lines) if words in line) for words in runs]
    assert places == sorted(places)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_prints_the_rows_of_the_table(clone):
    printed = clone("make demo", seconds=3500)

    table = README.partition("<!-- table of the demo -->")[2].partition("<!-- end")[0]
    names = [line.split("|")[1].strip() for line in table.strip().splitlines()[2:]]
    assert names[:2] == ["base", "theta1"]
    rows = [line for line in printed.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows if row.split("│")[1].strip()] == names * 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_is_built(clone):
    pytest.importorskip("mkdocs")

    assert "passed" in clone("make site", seconds=800)
