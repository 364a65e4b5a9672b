"""mkdocs hooks: pages of the repository's root, and Markdown as GitHub reads it.

Documents are read on GitHub as well, whose Markdown needs no blank line before a list, nests
lists by two spaces, and ignores what stands behind a fence's language.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
PICTURES = ("base/starter/samples.png",)
_LINK = re.compile(r"(\]\()(?:\.\./)*([A-Za-z/-]+\.(?:md|png))(?=[)#])")
_FENCE = re.compile(r"^(```yaml) (?:file|merge)=(\S+)$", re.MULTILINE)
_ITEM = re.compile(r"\s*(?:[-*+]|\d+\.) ")


class TwoSpaces(Extension):
    """Nests lists by two spaces."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 -- the library's name
        """Set the width of a level."""
        md.tab_length = 2


def on_config(config: Any) -> Any:
    """Add the extension to those of mkdocs.yml."""
    config.markdown_extensions.append(TwoSpaces())
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the root's pages, and pictures of other folders that pages show."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for name in PICTURES:
        files.append(File.generated(config, f"assets/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links out of docs/ to the pages that were added; part lists from paragraphs."""
    up = "../" * page.file.src_uri.count("/")

    def added(link: re.Match[str]) -> str:
        target = link[2]
        place = PAGES.get(target) or (f"assets/{target}" if target in PICTURES else None)
        return link[0] if place is None else f"{link[1]}{up}{place}"

    return "\n".join(_parted(_FENCE.sub(r'\1 title="\2"', _LINK.sub(added, markdown))))


def _parted(markdown: str) -> Iterator[str]:
    """Yield the lines, with a blank one between a paragraph and the list that follows it."""
    code, above = False, ""  # the first line of the block
    for line in markdown.splitlines():
        code ^= line.lstrip().startswith("```")
        if not code and above and _ITEM.match(line) and not _ITEM.match(above):
            yield ""
            above = ""
        above = (above or line) if line.strip() and not line.startswith("```") else ""
        yield line
