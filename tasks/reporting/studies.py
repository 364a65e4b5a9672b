"""What people said of the pictures: sections that ``survey analyze`` wrote for the report."""

import json
from collections.abc import Collection
from pathlib import Path

from atelier.errors import ArtifactError
from tasks.run import paths

RESULTS, SECTION = "results.json", "section.html"  # in a study's folder


def sections(pictures: Collection[str]) -> list[str]:
    """Return the section of every analysed study on no other pictures than these, as HTML.

    Args:
        pictures: Their sha256. A study of other pictures says nothing about the candidates.

    Raises:
        ArtifactError: A study was analysed by another version, or its results are damaged.
    """
    found = []
    for file in sorted(paths.SURVEY.glob(f"[!.]*/{RESULTS}")):
        if not _pictures(file) <= set(pictures):
            continue
        section = file.with_name(SECTION)
        if not section.is_file():
            raise _of_another_version(section)
        found.append(section.read_text(encoding="utf-8"))
    return found


def _pictures(file: Path) -> set[str]:
    try:
        return set(json.loads(file.read_bytes())["pictures"])
    except (ValueError, KeyError, TypeError):
        raise _of_another_version(file) from None


def _of_another_version(file: Path) -> ArtifactError:
    return ArtifactError(
        f"{file} is absent, damaged, or was written by another version; run "
        f"`atelier survey analyze {file.parent.name}`, which writes it again"
    )
