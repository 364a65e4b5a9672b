"""mkdocs hooks: pages of the repository's root, and links between them and docs/."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
PICTURES = ("base/starter/samples.png",)
_LINK = re.compile(r"(\]\()(?:\.\./)?([A-Za-z/-]+\.(?:md|png))(?=[)#])")


def on_files(files: Files, config: Any) -> Files:
    """Add the root's pages, and pictures of other folders that pages show."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for name in PICTURES:
        files.append(File.generated(config, f"assets/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of docs/ to the pages and pictures that were added."""

    def added(link: re.Match[str]) -> str:
        target = link[2]
        place = PAGES.get(target) or (f"assets/{target}" if target in PICTURES else target)
        return link[0] if place == target else link[1] + place

    return _LINK.sub(added, markdown)
