"""The built site, site/, by its files: links lead somewhere, nothing is loaded from elsewhere.

`make site` runs it after it has built the site; it is no part of `make test`.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).parents[2] / "site"
LOADED = {"src", "srcset", "poster", "data"}  # attributes whose address a browser asks for
STYLED = re.compile(r"url\(\s*[\"']?(?:https?:)?//|@import\s+[\"']?(?:https?:)?//")


class Page(HTMLParser):
    """Identifiers, links and loaded addresses of a page."""

    def __init__(self, file):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") not in {"canonical", "prev", "next"}:
            self.loaded.append(given.get("href") or "")
        self.loaded += [given[name] for name in LOADED & given.keys() if given[name]]


@pytest.fixture(scope="module")
def pages():
    if not (SITE / "index.html").is_file():
        pytest.skip("there is no site; `make site` builds it")
    return {file: Page(file) for file in SITE.rglob("*.html")}


def test_every_link_inside_leads_to_a_file_and_a_place(pages):
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or file.name == "404.html":
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            place = unquote(parts.fragment)
            if not target.is_file() or (
                place and target in pages and place not in pages[target].ids | {"__top"}
            ):
                broken.append(f"{file.relative_to(SITE)}: {link}")

    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages):
    foreign = [
        f"{file.relative_to(SITE)}: {address}"
        for file, page in pages.items()
        for address in page.loaded
        if urlsplit(address).netloc
    ]

    assert foreign == []


def test_styles_load_nothing_from_elsewhere():
    assert [file.name for file in SITE.rglob("*.css") if STYLED.search(file.read_text())] == []
