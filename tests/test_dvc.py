"""dvc.yaml against the code: what a stage forgets to list, it does not rerun for."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from atelier.config.profile import Profile
from flows.dvc import code_deps

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGE = pytest.mark.parametrize("name", STAGES)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def graph():
    return code_deps.import_graph()


def test_each_stage_depends_on_what_it_imports():
    changes = code_deps.differences()

    assert not changes, "run `make deps`, which does this:\n" + "\n".join(changes)


@STAGE
def test_what_only_tells_places_or_checks_does_not_run_a_stage_again(name):
    without = code_deps.TELLING | code_deps.PLACING | code_deps.CHECKING

    assert not {f"{module.replace('.', '/')}.py" for module in without} & set(
        STAGES[name]["deps"]
    )


def test_params_hold_no_computation_that_a_stage_would_have_to_depend_on():
    tree = ast.parse((ROOT / "atelier/config/profile.py").read_text())
    methods = [
        node
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef)
    ]

    assert methods
    for method in methods:
        assert "validator" in ast.unparse(method.decorator_list[0]), method.name


@STAGE
def test_a_stage_lists_the_params_that_it_reads(name, graph):
    (listed,) = STAGES[name]["params"]
    (sections,) = listed.values()

    assert list(listed) == ["params/${profile}.yaml"]
    assert sorted(sections) == sorted(set(read_by(name, graph)))


def read_by(name, graph):
    """What a stage reads of a profile, as `sft` (all of it) or `annotate.criteria`."""
    found = set()
    for path in code_deps.needed(name, graph):
        if path.startswith("tasks/"):
            for node in ast.walk(ast.parse((ROOT / path).read_text())):
                if isinstance(node, ast.FunctionDef):
                    found |= set(reads(node))
    return {field for field in found if field.partition(".")[0] not in found - {field}}


def reads(function: ast.FunctionDef) -> Iterator[str]:
    """The sections of `profile` that a function reads; a local name for one is followed."""
    names, used = {}, set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and (section := section_of(node.value)):
            names[node.targets[0].id] = section
            used.add(node.value)
    for node in ast.walk(function):
        if not isinstance(node, ast.Attribute):
            continue
        if section := section_of(node.value):
            used.add(node.value)
            yield f"{section}.{node.attr}"
        elif isinstance(node.value, ast.Name) and node.value.id in names:
            used.add(node.value)
            yield f"{names[node.value.id]}.{node.attr}"
    for node in ast.walk(function):
        if node not in used and isinstance(getattr(node, "ctx", None), ast.Load):
            if section := section_of(node):
                yield section
            elif isinstance(node, ast.Name) and node.id in names:
                yield names[node.id]


def section_of(node: ast.AST) -> str | None:
    """`sft` for the expression `profile.sft`."""
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
        return None
    is_section = node.value.id == "profile" and node.attr in Profile.model_fields
    return node.attr if is_section else None


def test_a_local_name_for_a_section_is_followed():
    function = ast.parse(
        "def run(profile):\n"
        "    params = profile.cpo\n"
        "    whole = profile.sft\n"
        "    use(params.lora, whole, profile.annotate.criteria, profile.model.pixels)\n"
    ).body[0]

    assert sorted(reads(function)) == ["annotate.criteria", "cpo.lora", "model.pixels", "sft"]


@STAGE
def test_a_stage_says_what_it_does_and_how_it_is_run(name):
    from flows.dvc.stages import Meta

    assert STAGES[name]["desc"]
    Meta.model_validate(STAGES[name]["meta"])
    assert (ROOT / f"tasks/{name}.py").is_file()


@STAGE
def test_what_a_stage_makes_lies_in_its_folder(name):
    outs = [STAGES[name].get(kind, []) for kind in ("outs", "metrics", "plots")]
    paths = [out if isinstance(out, str) else next(iter(out)) for rows in outs for out in rows]

    assert all(Path(path).is_relative_to(f"artifacts/{name}") for path in paths)
