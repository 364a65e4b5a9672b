import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def documents():
    listed = subprocess.run(
        ["git", "ls-files", "*.md", ":!tests/golden"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.split()


def targets(document):
    text = re.sub(
        r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL
    )
    return [link for link in LINK.findall(text) if not re.match(r"[a-z]+:|#", link)]


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", documents())
def test_every_relative_link_leads_to_a_file_and_a_heading(document):
    for link in targets(document):
        path, _, anchor = link.partition("#")
        file = (ROOT / document).parent / path
        assert file.exists(), f"{document} links to {link}, which does not exist"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{document}: {link}"
