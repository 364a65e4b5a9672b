"""``results.json`` of a study: what ``analyze`` found, for the report and other programs."""

from atelier.config.fields import Params
from survey.method.page import Page


class Results(Params):
    """What was found, and on which pictures."""

    page: Page
    weights: dict[str, str | None]  # DVC's md5 of each painter's LoRA, where it is known
    pictures: list[str]  # sha256 of the pictures that were compared, as generate keeps them
