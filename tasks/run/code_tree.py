"""Code tree of one module: a hash of what is executed, and the modules that it imports.

The hash is that of its syntax tree without comments, positions, docstrings, annotations of
functions, code under ``TYPE_CHECKING``, and paths of our own modules in imports. The imported
names stay, so a module may move. Data files with the module's name in its folder, such as
templates, belong to it.

A module may be imported by a string, ``importlib.import_module``, if it stands there whole, or
begins there up to a dot: ``f"atelier.objectives.{kind}"`` stands for that package's modules.
"""

import ast
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from atelier.errors import ArtifactError

PACKAGES = ("atelier", "tasks")


@dataclass(frozen=True)
class Module:
    """What one module does.

    Attributes:
        tree: Hash of its syntax tree and of its data files.
        imports: For each import of ours: the names that it brings, and the module.
        kinds: Values of fields called ``objective``: the objectives that it defines.
        asks_objectives: Whether it reads ``objectives`` of something, as of ``profile.cpo``.
    """

    tree: str
    imports: frozenset[tuple[str, str]]
    kinds: frozenset[str]
    asks_objectives: bool


def read(file: Path, ours: Collection[str]) -> Module:
    """Read a module.

    Args:
        file: Of Python.
        ours: Names of all modules of our packages.

    Raises:
        ArtifactError: It is no Python, or imports a module by a name that it computes.
    """
    bare = _Bare(ours)
    try:
        tree = bare.visit(ast.parse(file.read_text(encoding="utf-8")))
    except (SyntaxError, UnicodeDecodeError, _ComputedNameError) as error:
        raise ArtifactError(f"{file} is code that no stage can depend on: {error}") from None
    parts = [_spelled(tree), *sorted(names for names, _ in bare.imports)]
    for beside in sorted(file.parent.glob(f"{file.stem}.*")):
        if beside.suffix != ".py":
            ending = beside.name.removeprefix(file.stem)
            parts.append(f"{ending} {hashlib.sha256(beside.read_bytes()).hexdigest()}")
    return Module(
        hashed(parts), frozenset(bare.imports), frozenset(bare.kinds), bare.asks_objectives
    )


def hashed(lines: Collection[str]) -> str:
    """Return a short hash of lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _spelled(node: object) -> str:
    """A tree as text; Python's own ``ast.dump`` writes empty fields in some versions."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None)
        words = (f"{name}={_spelled(value)}" for name, value in fields if value != [])
        return f"{type(node).__name__}({','.join(words)})"
    if isinstance(node, list):
        return f"[{','.join(map(_spelled, node))}]"
    return repr(node)


class _ComputedNameError(Exception):
    """A module is imported by a name that is not written down."""


class _Bare(ast.NodeTransformer):
    """Takes out of a tree what only people and type checkers read, and our own imports."""

    def __init__(self, ours: Collection[str]) -> None:
        self._ours = ours
        self.imports: set[tuple[str, str]] = set()
        self.kinds: set[str] = set()
        self.asks_objectives = False

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if _text(node.value) is not None else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(statement) for statement in node.orelse]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None  # a class's annotations stay: they define its fields
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if isinstance(node.target, ast.Name) and node.target.id == "objective":
            words = (_text(one) for one in ast.walk(node.annotation))
            self.kinds |= {word for word in words if word is not None}
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.asks_objectives |= node.attr == "objectives"
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        others = [alias for alias in node.names if not _is_ours(alias.name)]
        for alias in node.names:
            if alias not in others:
                self.imports.add((f"import {alias.asname or ''}", alias.name))
        node.names = others
        return node if others else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        assert not node.level, "ruff forbids relative imports"
        if not _is_ours(node.module or ""):
            return node
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            target = whole if whole in self._ours else str(node.module)
            self.imports.add((f"{alias.name} {alias.asname or ''}", target))
        return None

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else None
        if called == "import_module" and node.args:
            self._note_string(node)
        return self.generic_visit(node)

    def _note_string(self, node: ast.Call) -> None:
        """Note what ``import_module("…")`` brings; a name of ours is replaced by its end."""
        (name, *others) = node.args
        first, *rest = name.values if isinstance(name, ast.JoinedStr) else [name]
        written = _text(first)
        if written is None or (rest and "." not in written):
            raise _ComputedNameError(
                f"line {node.lineno} imports a module by a name that it computes; write the "
                "name there, or its beginning up to a dot"
            )
        if not _is_ours(written):
            return
        for target in self._ours:
            if target == written or (rest and target.startswith(written)):
                self.imports.add(("import_module", target))
        node.args = [*rest, *others]


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES
