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
    "README.md": "index.md",
    "SECURITY.md": "security.md",
}
PICTURES = ("base/starter/samples.png", "base/starter-sdxl/samples.png")
_LINK = re.compile(r"(\]\()(?:\.\./)*([A-Za-z/-]+\.(?:md|png))(?=[)#])")
_FENCE = re.compile(r"^(```yaml) (?:file|merge)=(\S+)$", re.MULTILINE)
_COPIED = re.compile(r"<!-- README.md, (.+?) -->")
_PARTS = {  # of README.md that pages copy: between which marks they stand
    "result": ("\n## Result\n", "\n## "),
    "table": ("<!-- table of the demo -->", "<!-- end of the table -->"),
}
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
        if page == "index.md":
            continue
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for name in PICTURES:
        files.append(File.generated(config, f"assets/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Copy what a page takes from README.md, and mend links, titles of code and lists."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    markdown = _COPIED.sub(lambda mark: _copied(readme, mark[1]), markdown)
    up = "../" * page.file.src_uri.count("/")

    def added(link: re.Match[str]) -> str:
        target = link[2]
        place = PAGES.get(target) or (f"assets/{target}" if target in PICTURES else None)
        return link[0] if place is None else f"{link[1]}{up}{place}"

    return "\n".join(_parted(_FENCE.sub(r'\1 title="\2"', _LINK.sub(added, markdown))))


def _copied(readme: str, part: str) -> str:
    """Return a part of README.md."""
    begin, end = _PARTS[part]
    _, found, rest = readme.partition(begin)
    assert found, f"README.md has no {begin.strip()}"
    return rest.partition(end)[0].replace("](docs/", "](").strip()


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
