"""``results.json`` of a study: what ``analyze`` found, for the report and other programs."""

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from atelier.config.fields import Params
from atelier.errors import ArtifactError
from survey.method.page import Page
from tasks.run import paths

RESULTS = "results.json"


class Results(Params):
    """What was found, and on which pictures."""

    page: Page
    weights: dict[str, str | None]  # DVC's md5 of each painter's LoRA, where it is known
    pictures: list[str]  # sha256 of the pictures that were compared, as evaluate keeps them


def of_pictures(hashes: Collection[str]) -> list[Page]:
    """Return what was found in every analysed study on no other pictures than these.

    Args:
        hashes: sha256 of pictures; a study of other ones says nothing about their painters.
    """
    found = [_read(file) for file in sorted(paths.SURVEY.glob(f"[!.]*/{RESULTS}"))]
    return [one.page for one in found if set(one.pictures) <= set(hashes)]


def _read(file: Path) -> Results:
    try:
        return Results.model_validate_json(file.read_bytes())
    except ValidationError:
        raise ArtifactError(
            f"{file} was written by another version, or is damaged; run "
            f"`atelier survey analyze {file.parent.name}`, which writes it again"
        ) from None
