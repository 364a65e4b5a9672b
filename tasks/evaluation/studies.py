"""What people said of the pictures: sections that ``survey analyze`` wrote for the report."""

import json
from collections.abc import Collection

from tasks.run import paths, progress

RESULTS, SECTION = "results.json", "section.html"  # in a study's folder


def sections(pictures: Collection[str]) -> list[str]:
    """Return the section of every analysed study on no other pictures than these, as HTML.

    Args:
        pictures: Their sha256. A study of other pictures says nothing about the candidates.
    """
    found = []
    for file in sorted(paths.SURVEY.glob(f"[!.]*/{RESULTS}")):
        if not set(json.loads(file.read_bytes())["pictures"]) <= set(pictures):
            continue
        section = file.with_name(SECTION)
        if section.is_file():
            found.append(section.read_text(encoding="utf-8"))
        else:
            name = file.parent.name
            progress.say(f"{section} is absent; `atelier survey analyze {name}` writes it")
    return found
