"""dvc.yaml against the code: what a stage forgets to list, it does not rerun for."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from atelier.config.profile import Profile
from tasks import code
from tasks.code import Packages
from tasks.run import code_tree, paths

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGE = pytest.mark.parametrize("name", [name for name in STAGES if name != "code"])
KINDS = {
    "cpo", "cpo-s", "ddspo", "dpo", "mapo", "npo", "sdpo", "slider", "spo-measured"
}  # fmt: skip


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def packages():
    return Packages(ROOT)


@STAGE
def test_a_stage_depends_on_what_its_code_does_and_on_no_file_of_code(name):
    listed = STAGES[name]["deps"]

    assert (paths.CODE / f"{name}.json").as_posix() in listed
    assert not {Path(path).parts[0] for path in listed} & set(code_tree.PACKAGES)


def test_the_stage_code_reads_the_packages_and_writes_a_file_for_each_other_stage():
    assert list(STAGES) == ["code", *code.STAGES]
    assert sorted(STAGES["code"]["deps"]) == sorted([*code_tree.PACKAGES, "loras"])
    assert {Path(out) for out in STAGES["code"]["outs"]} == set(code.contents())


@STAGE
def test_what_only_tells_places_or_checks_is_no_part_of_a_stage(name, packages):
    common, objectives = packages.modules(name, KINDS)

    for module in code.TELLING | code.PLACING | code.CHECKING:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{module} has moved"
        assert module not in common.union(*objectives.values())


def test_only_stages_that_read_the_objectives_have_their_code(packages):
    asking = [name for name in code.STAGES if packages.modules(name, KINDS)[1]]

    assert asking == ["cpo", "generate", "report"]


def test_a_data_file_of_a_package_belongs_to_the_module_beside_it():
    files = [file for name in ("atelier", "tasks") for file in (ROOT / name).rglob("*")]
    data = [file for file in files if file.suffix not in {".py", ".pyc", ".typed", ""}]

    assert data
    for file in data:
        assert file.with_name(f"{file.name.partition('.')[0]}.py").is_file(), file


def test_params_hold_no_computation_that_a_stage_would_have_to_depend_on():
    files = [ROOT / f"atelier/config/{name}.py" for name in ("objectives", "profile")]
    methods = [
        node
        for file in files
        for owner in ast.walk(ast.parse(file.read_text()))
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef)
    ]

    assert methods
    for method in methods:
        assert "validator" in ast.unparse(method.decorator_list[0]), method.name


# Settings that save passes and change no byte of what is made: DVC need not know them.
WITHOUT_EFFECT = {"cpo.keep_targets"}


@STAGE
def test_a_stage_lists_the_params_that_it_reads(name, packages):
    (listed,) = STAGES[name]["params"]
    (sections,) = listed.values()

    assert list(listed) == ["params/${profile}.yaml"]
    assert sorted(sections) == sorted(set(read_by(name, packages)) - WITHOUT_EFFECT)


def read_by(name, packages):
    """What a stage reads of a profile, as `sft` (all of it) or `annotate.criteria`."""
    found = set()
    for path in packages.trees(name, KINDS):
        if path.is_relative_to(ROOT / "tasks"):
            for node in ast.walk(ast.parse(path.read_text())):
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
            if node.attr == "model_copy":
                continue  # what it copies is read elsewhere, or not at all
            yield section if node.attr == "model_dump" else f"{section}.{node.attr}"
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
