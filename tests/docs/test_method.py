"""docs/method.md names a function and a test for every equation: both must be there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rows():
    lines = (ROOT / "docs/method.md").read_text(encoding="utf-8").splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [cells for cells in table[1:] if not cells[0].startswith("---")]


def names(file):
    """Functions, classes and methods of a module, by their dotted names in it."""
    found = set()

    def visit(nodes, above):
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(f"{above}{node.name}")
                visit(node.body, f"{above}{node.name}.")

    visit(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return found


def is_there(reference):
    parts = reference.split(".")
    for end in range(1, len(parts) + 1):
        for package in ("", "atelier"):
            file = (ROOT / package).joinpath(*parts[:end]).with_suffix(".py")
            if file.is_file() and (end == len(parts) or ".".join(parts[end:]) in names(file)):
                return True
    return False


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: cells[0])
def test_an_equation_has_its_function_and_its_test(cells):
    functions = re.findall(r"`([a-zA-Z_]\w*(?:\.\w+)+)`", cells[3])
    tests = re.findall(r"`(test_\w+)`", cells[4])

    assert len(cells) == 5
    assert functions
    assert tests
    assert [one for one in functions if not is_there(one)] == []
    assert [one for one in tests if not list((ROOT / "tests").rglob(f"{one}.py"))] == []
