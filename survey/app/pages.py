"""Pages of the survey app: Jinja2 templates in the reader's language, with escaping."""

import importlib.resources
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Literal, get_args

import jinja2
import yaml

Language = Literal["en", "zh"]
NAMES: Mapping[Language, str] = {"en": "English", "zh": "中文"}
_FOLDER = importlib.resources.files("survey.app") / "templates"


def render(page: str, language: Language, **values: Any) -> str:
    """Return the page ``<page>.html.j2`` in ``language``."""
    template = _environment().get_template(f"{page}.html.j2")
    say = partial(translated, language=language)
    return template.render(language=language, languages=NAMES, say=say, **values)


def translated(text: str, language: Language, **values: object) -> str:
    """Return ``text`` in ``language``, if the catalog has it, with values inserted.

    The catalogue's keys are the English texts, as in gettext; criteria are looked up in the
    same way, so one whose English was changed shows as it was written.
    """
    return (
        catalogue(language).get(text, text).format(**values)
        if values
        else (catalogue(language).get(text, text))
    )


def preferred(accepted: str) -> Language:
    """Return the first language of an ``Accept-Language`` header that the pages support."""
    for entry in accepted.split(","):
        wanted = entry.split(";")[0].strip().lower().split("-")[0]
        for language in get_args(Language):
            if wanted == language:
                return language  # type: ignore[no-any-return]
    return "en"


@cache
def catalogue(language: Language) -> dict[str, str]:
    """Return the texts of a language by the English ones; none for English itself."""
    if language == "en":
        return {}
    texts = yaml.safe_load((_FOLDER / f"{language}.yaml").read_text(encoding="utf-8"))
    return dict(texts)


@cache
def asset(name: str) -> bytes:
    """Return the style sheet or the script."""
    return (_FOLDER / name).read_bytes()


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("survey.app", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
