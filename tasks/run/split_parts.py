"""The records of one part of the split; a part without pictures is refused before any work."""

from typing import TYPE_CHECKING

from atelier.criteria import annotations
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError
from tasks.run import paths

if TYPE_CHECKING:
    # Not for more: training does not depend on how pictures were divided.
    from atelier.criteria.splits import Part


def read(part: "Part", setting: str) -> list[Record]:
    """Return the records of a part.

    Args:
        part: Whose.
        setting: The setting that asks for it, for the error.

    Raises:
        ArtifactError: ``split`` has not run; or the part is empty.
    """
    file = paths.SPLIT / f"{part}.jsonl"
    records = annotations.read(file, Record)
    if not records:
        raise ArtifactError(
            f"{file} is empty: the split gave the {part} part no pictures, and {setting} needs "
            f"some; raise split.{part} in the profile and run `dvc repro split`"
        )
    return records
