"""Criteria pages: the tree as searchable HTML, and as an outline in Markdown."""

import base64
import hashlib
import importlib.resources
from collections.abc import Iterator, Mapping

import jinja2
from markupsafe import Markup

from atelier.criteria.tree import Branch, Criterion, Tree


def html(tree: Tree) -> str:
    """Return the tree as one HTML file that loads nothing; without scripts it still unfolds.

    Everything from the file is escaped, and the page lets no script run but its own.
    """
    folder = importlib.resources.files("atelier.reports")
    script = (folder / "criteria_page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = size
    template = environment.from_string(
        (folder / "criteria_page.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        tree=tree,
        pairs=len(tree.leaves()),
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=f"sha256-{digest}",
    )


def markdown(tree: Tree) -> str:
    """Return the tree as a table of its roots and, for each, a list that unfolds."""
    rows = [
        f"| {_title(key, node)} | {size(node)} | {_about(node)} |"
        for key, node in tree.criteria.items()
    ]
    lists = [line for key, node in tree.criteria.items() for line in _folded(key, node)]
    return "\n".join(["| root | pairs | what it asks |", "|---|---:|---|", *rows, "", *lists])


def measures(tree: Tree) -> str:
    """Return, root by root, a table of the pairs that are read from pixels, and how."""
    from atelier.annotators import measured

    lines: list[str] = []
    leaves, found = tree.leaves(), measured.measured(tree)
    for root in tree.roots():
        paths = [path for path in found if path.startswith(f"{root}/")]
        if paths:
            lines += ["", f"### {_title(root, tree.criteria[root])}", "", *_MEASURES_HEAD]
        for path in paths:
            said = measured.explained(found[path].name)
            pair = f"**{leaves[path].positive}** ↔ {leaves[path].negative}"
            source = said.get("References", "") or ", ".join(
                tree.literature[key] for key in leaves[path].sources
            )
            at = f"{found[path].positive_at:g} / {found[path].negative_at:g}"
            cells = (
                f"{pair}<br>`{path.rsplit('/', 1)[-1]}`",
                f"`{found[path].name}` {said['what']} *{said['Unit']}*",
                at,
                said["Silent"],
                said["Limits"],
                source,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines[1:])


_MEASURES_HEAD = (
    "| pair | measure, *unit* | positive / negative at | silent | limits | source |",
    "|---|---|---|---|---|---|",
)


def size(node: Branch | Criterion) -> int:
    """Return how many pairs hang on ``node``, itself included."""
    if isinstance(node, Criterion):
        return 1
    return sum(size(below) for below in node.branches.values())


def _title(key: str, node: Branch | Criterion) -> str:
    return node.name if isinstance(node, Branch) else key


def _about(node: Branch | Criterion) -> str:
    return node.about if isinstance(node, Branch) else node.positive_means


def _folded(key: str, node: Branch | Criterion) -> Iterator[str]:
    below = node.branches if isinstance(node, Branch) else {key: node}
    yield f"<details><summary><b>{_title(key, node)}</b>, {size(node)} pairs</summary>"
    yield ""
    yield from _bullets(below, "")
    yield ""
    yield "</details>"
    yield ""


def _bullets(nodes: Mapping[str, Branch | Criterion], indent: str) -> Iterator[str]:
    for key, node in nodes.items():
        if isinstance(node, Branch):
            yield f"{indent}- **{node.name}.** {node.about}"
            yield from _bullets(node.branches, f"{indent}  ")
        else:
            applies = "" if node.applies == "any" else f" · *{', '.join(node.applies)}*"
            yield f"{indent}- `{key}` {node.positive} ↔ {node.negative}{applies}"
