"""Captions with numbers of their own: a corpus in which no two pictures share a caption.

Real paintings have titles of their own. The starter's captions name a subject and a hue alone,
so that dozens of pictures share one, which pairwise methods profit from; a study with
``numbered: true`` takes that away and leaves the words as they are.
"""

import csv
import io
from pathlib import Path

from atelier import atomic
from atelier.errors import ArtifactError, ParamsError

FILE = "numbered.csv"


def write(data: Path, table: object) -> str:
    """Write a table of captions beside another; return its name, for ``annotate.captions``.

    Args:
        data: The folder of the pictures.
        table: What ``annotate.captions`` names: a CSV with the columns file and caption.

    Raises:
        ParamsError: ``annotate.captions`` names no such table.
        ArtifactError: The table is absent, or has no such columns.
    """
    if not isinstance(table, str) or not table.endswith(".csv"):
        raise ParamsError(
            "numbered: true needs a profile whose annotate.captions names a CSV inside data/, "
            f"is {table!r}"
        )
    file = data / table
    if not file.is_file():
        raise ArtifactError(f"{file} is absent; annotate.captions names it")
    with file.open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    if not rows or not {"file", "caption"} <= rows[0].keys():
        raise ArtifactError(f"{file} should have the columns file and caption, and rows")
    written = io.StringIO()
    writer = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for number, row in enumerate(rows, start=1):
        writer.writerow({**row, "caption": f"{row['caption']}, number {number}"})
    atomic.write(data / FILE, written.getvalue())
    return FILE
