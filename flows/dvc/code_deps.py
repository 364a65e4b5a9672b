"""Which code each stage of dvc.yaml depends on, derived from what it imports.

A stage that forgets a module silently does not rerun. So ``make deps`` writes the lines, and
a test compares them. A stage depends on every module that ``tasks.<stage>`` imports, directly
or not, for more than type checking, in functions as well, with the ``__init__`` of each
package on the way that holds more than its docstring, and what lies beside a module under
its name (a template); except on the modules named here, with
what is reached through them alone. They cannot change what a stage makes of its inputs:

* ``TELLING``: they tell people what happens; a new bar must not train again;
* ``PLACING``: they say where files lie, and write them whole; a path that moves is in
  dvc.yaml anyway;
* ``CHECKING``: they refuse bad input; of what they let through, the values are params of the
  stage, which DVC compares one by one.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grimp import ImportGraph

TELLING = frozenset(
    {
        "atelier.reporting",
        "tasks.training.validation_images",
        "tasks.run.machine",
        "tasks.run.progress",
        "tasks.tracking.registry",
        "tasks.commands.table",
        "tasks.tracking.mlflow_runs",
    }
)
PLACING = frozenset({"tasks.run.paths", "atelier.atomic"})
CHECKING = frozenset({"atelier.config.profile", "atelier.errors"})
DVC_YAML = Path("dvc.yaml")


def needed(stage: str, graph: "ImportGraph") -> list[str]:
    """Return the files of code that ``stage`` depends on, sorted."""
    task = f"tasks.{stage}"
    if task not in graph.modules:
        return []
    modules = {task} | graph.find_upstream_modules(task)
    packages = {above for module in modules for above in _above(module)}
    return sorted(path for module in modules | packages for path in _files(module))


def import_graph() -> "ImportGraph":
    """Return who imports whom in the library and the tasks, without the exceptions."""
    import grimp

    graph = grimp.build_graph(
        "atelier", "tasks", exclude_type_checking_imports=True, cache_dir=None
    )
    for module in TELLING | PLACING | CHECKING:
        graph.remove_module(module)
    return graph


def differences() -> list[str]:
    """Return a line for each dependency to add to or remove from dvc.yaml."""
    graph = import_graph()
    return [
        f"dvc.yaml, stage {name}, deps: {sign} {path}"
        for name, stage in _read()["stages"].items()
        for sign, path in _changes(stage["deps"], needed(name, graph))
    ]


def rewrite() -> list[str]:
    """Bring dvc.yaml up to date, comments kept; return what changed."""
    from dvc.utils.serialize import modify_yaml

    changes = differences()
    if not changes:
        return ["dvc.yaml lists what each stage imports"]
    graph = import_graph()
    with modify_yaml(DVC_YAML) as content:
        for name, stage in content["stages"].items():
            others = [path for path in stage["deps"] if not _is_code(path)]
            stage["deps"] = [*others, *needed(name, graph)]
    return changes


def _read() -> dict[str, dict[str, dict[str, list[str]]]]:
    from dvc.utils.serialize import load_yaml

    content: dict[str, dict[str, dict[str, list[str]]]] = load_yaml(DVC_YAML)
    return content


def _changes(listed: list[str], right: list[str]) -> Iterator[tuple[str, str]]:
    code = {path for path in listed if _is_code(path)}
    yield from (("add", path) for path in right if path not in code)
    yield from (("remove", path) for path in sorted(code - set(right)))


def _is_code(path: str) -> bool:
    return path.startswith(("atelier/", "tasks/"))


def _above(module: str) -> Iterator[str]:
    """Yield the packages around a module, whose ``__init__`` runs before it."""
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _files(module: str) -> list[str]:
    """Return a module's files; none for a package that holds at most a docstring."""
    path = Path(*module.split("."))
    if path.is_dir():
        init = path / "__init__.py"
        return [init.as_posix()] if init.is_file() and _has_code(init) else []
    return [beside.as_posix() for beside in path.parent.glob(f"{path.name}.*")]


def _has_code(file: Path) -> bool:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return not all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body
    )
