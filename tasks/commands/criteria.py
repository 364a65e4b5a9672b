"""``atelier criteria show|check|document``: for authors of a criteria tree."""

import re
from pathlib import Path

from rich.markup import escape
from rich.tree import Tree as Drawing

from atelier import atomic
from atelier.config.profile import read_in_force
from atelier.criteria import tree, wording
from atelier.criteria.tree import Branch, Criterion, Tree
from atelier.errors import CriteriaError
from atelier.reports import criteria_page
from tasks.run import paths
from tasks.run.console import console, say

_BLOCK = re.compile(
    r"(<!-- (criteria|measures): (\S+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL
)


def show(file: Path | None, html: Path | None) -> None:
    """Draw the tree of ``file`` (by default the profile's) in the terminal, or into ``html``.

    Raises:
        CriteriaError: The file does not fit.
    """
    criteria = tree.parse(file or in_force())
    if html is None:
        console().print(drawing(criteria))
    else:
        atomic.write(html, criteria_page.html(criteria))
        say(f"{html} shows {_summary(criteria)}")


def check(file: Path | None) -> None:
    """Say what ``file`` holds (by default the profile's), and what might be worded better.

    Raises:
        CriteriaError: The file does not fit; every mistake with its path.
    """
    file = file or in_force()
    criteria = tree.parse(file)
    for objection in wording.objections(criteria):
        say(f"  {objection}")
    say(f"{file} fits: {_summary(criteria)}")


def document(guide: Path) -> None:
    """Write each tree that ``guide`` asks for between its marks.

    Raises:
        CriteriaError: The guide is absent or names no file, or a file does not fit.
    """
    try:
        text = guide.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CriteriaError(
            f"{guide} is absent; name the Markdown file to write into"
        ) from None
    atomic.write(guide, documented(text))


def documented(text: str) -> str:
    """Return ``text`` with the trees between ``<!-- criteria: file -->`` and its end.

    Between ``<!-- measures: file -->`` and its end: the measures of that tree.
    """
    if not _BLOCK.search(text):
        raise CriteriaError(
            "the guide has no place for a tree; write `<!-- criteria: params/criteria/….yaml "
            "-->` and, on a later line, `<!-- end of criteria -->`"
        )
    write = {"criteria": criteria_page.markdown, "measures": criteria_page.measures}
    return _BLOCK.sub(
        lambda found: f"{found[1]}\n{write[found[2]](tree.parse(Path(found[3])))}\n{found[4]}",
        text,
    )


def drawing(criteria: Tree) -> Drawing:
    """Return the tree for the terminal."""
    trunk = Drawing(f"[bold]{escape(criteria.domain)}[/] · {escape(_summary(criteria))}")
    for key, node in criteria.criteria.items():
        _grow(trunk, key, node)
    return trunk


def _grow(trunk: Drawing, key: str, node: Branch | Criterion) -> None:
    if isinstance(node, Branch):
        bough = trunk.add(f"[bold]{escape(key)}[/] [dim]{escape(node.about)}[/]")
        for name, below in node.branches.items():
            _grow(bough, name, below)
    else:
        applies = (
            "" if node.applies == "any" else f" [dim]({escape(', '.join(node.applies))})[/]"
        )
        trunk.add(
            f"{escape(key)}: [green]+ {escape(node.positive)}[/] "
            f"[red]− {escape(node.negative)}[/]{applies}"
        )


def _summary(criteria: Tree) -> str:
    return (
        f"{len(criteria.leaves())} pairs, {len(criteria.roots())} roots, "
        f"{criteria.depth()} levels, version {criteria.version}"
    )


def in_force() -> Path:
    """Return the criteria file of the profile in force."""
    profile = read_in_force(paths.PARAMS)
    return paths.CRITERIA / profile.annotate.criteria
