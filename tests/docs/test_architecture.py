"""ARCHITECTURE.md against the repository: packages, modules, arrows and paths; no circles."""

import re
import subprocess
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "ARCHITECTURE.md"
ORDER = ("cli", "flows", "survey", "tasks", "atelier")  # each imports what stands behind it
MOST = 14  # modules of a folder
ONE_EACH = {
    "cli",
    "tasks/commands",
    "atelier/objectives",
}  # a module for each command, or objective
BLOCK = re.compile(r"^```\n(cli/.*?)^```", re.MULTILINE | re.DOTALL)
PACKAGE = re.compile(r"^([a-z_]+(?:/[a-z_]+)*)/  \S")


def drawn(page):
    """The modules of each package, by the tree of the page."""
    (tree,) = BLOCK.findall(page)
    packages, modules = {}, []
    for line in tree.splitlines():
        if head := PACKAGE.match(line):
            modules = packages.setdefault(head[1], [])
        else:
            modules += line.split()
    return packages


def real():
    """The modules of each package, by the files that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", *(f"{package}/*.py" for package in ORDER)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    packages = {}
    for file in (ROOT / name for name in listed.stdout.split()):
        if file.is_file():
            modules = packages.setdefault(file.parent.relative_to(ROOT).as_posix(), [])
            modules += [file.stem] * (not file.stem.startswith("__"))
    return packages


@pytest.fixture(scope="module")
def imports():
    """(module, imported module) for all modules of ours; imports for type checkers left out."""
    graph = grimp.build_graph(*ORDER, exclude_type_checking_imports=True, cache_dir=None)
    return {
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    }


def test_the_tree_has_every_package_and_module_and_no_other():
    tree, files = drawn(PAGE.read_text(encoding="utf-8")), real()

    assert tree.keys() == files.keys()
    for package, modules in files.items():
        assert sorted(tree[package]) == sorted(modules), f"the line of {package}/ in the tree"


def test_a_tree_that_names_too_much_or_too_little_is_found():
    page = "```\ncli/  commands\n    app clone\n    flow\ncli/more/  others\n```\n"

    assert drawn(page) == {"cli": ["app", "clone", "flow"], "cli/more": []}


def test_no_folder_is_crowded():
    crowded = {name: len(modules) for name, modules in real().items() if len(modules) > MOST}

    assert crowded.keys() <= ONE_EACH, "divide the folder by what its modules are about"


def test_every_path_that_the_page_names_exists():
    named = re.findall(r"`([a-z_/]+/(?:[a-z_]+\.(?:py|yaml))?)`", PAGE.read_text("utf-8"))

    made = ("artifacts/", "weights/")
    absent = [name for name in named if not name.startswith(made) and not is_there(name)]
    assert len(named) > 15
    assert absent == []


def is_there(name):
    return (ROOT / name).exists() or (ROOT / "atelier" / name).exists()


def test_packages_import_only_packages_behind_them(imports):
    place = {package: number for number, package in enumerate(ORDER)}
    against = {
        (module, imported)
        for module, imported in imports
        if place[module.split(".")[0]] > place[imported.split(".")[0]]
    }

    assert against == set()


def test_no_modules_import_each_other_in_a_circle(imports):
    components = networkx.strongly_connected_components(networkx.DiGraph(imports))

    assert [sorted(circle) for circle in components if len(circle) > 1] == []
