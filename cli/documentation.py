"""The pages docs/commands.md and docs/settings.md: ``python -m cli.documentation settings``."""

import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from typer.main import get_command

from cli.app import app

_WIDTH = 100
_SHOWN = ("starter", "sdxl")  # profiles whose values the page of settings has
_HEAD = """# Commands

`atelier` works in any folder of a clone; paths that you type are relative to that folder.
`atelier --install-completion` adds completion to your shell; `atelier COMMAND --help` prints
the same as this page. It is written by `python -m cli.documentation > docs/commands.md`.
"""
_SETTINGS_HEAD = """# Settings

Every setting of a profile, `params/<profile>.yaml`, with its unit in brackets. Settings without
a default have to be given; a mistyped name or value is reported within the first second.
`atelier settings explain NAME` prints the same of one setting, with its value in your profile.
The last columns are the values of two shipped profiles.

**In an editor.** `params/schema/` has JSON schemas of profiles, criteria and studies. The first
line of a profile, `# yaml-language-server: $schema=schema/profile.json`, lets VS Code (with the
YAML extension), Neovim, Helix, Emacs and other editors complete and check it. Criteria files
carry no such line, since `annotate` would run again for it; VS Code's settings can name them:

```json
"yaml.schemas": {"params/schema/criteria.json": "params/criteria/*.yaml"}
```

`atelier settings schema` writes the schemas from the code; this page is written by
`python -m cli.documentation settings > docs/settings.md`.
"""


def page() -> str:
    """Return the page: a section for each panel of ``atelier --help``."""
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    sections = [_HEAD]
    for panel, members in groupby(commands, key=lambda command: command.rich_help_panel):
        sections.append(f"## {panel}\n")
        sections += [text for one in members for text in _texts(one, "atelier")]
    return "\n".join(sections)


def settings_page() -> str:
    """Return the page of settings: a section for each table of a profile."""
    from atelier.config.profile import Profile, read_profile
    from atelier.config.schema import Settings, of
    from tasks.commands.settings import at, meaning, spelled
    from tasks.run import paths

    values = [read_profile(paths.profile(name)).model_dump(mode="json") for name in _SHOWN]
    texts = [_SETTINGS_HEAD]
    for name, kind, inside in Settings(of(Profile, "")).sections():
        title = f"`{name}`" if name else "Sections"
        texts.append(f"## {title}{f': {kind}' if kind and name else ''}\n")
        texts.append(_row("setting", "meaning", "type", "default", *_SHOWN))
        texts.append("|---" * (4 + len(_SHOWN)) + "|")
        sections = [_section(at, one, name, kind) for one in values]
        for one in inside:
            last = one.name.rpartition(".")[2]
            shown = (_short(spelled(at(section, last))) for section in sections)
            texts.append(_row(f"`{last}`", meaning(one), one.type, one.default or "", *shown))
        texts.append("")
    return "\n".join(texts)


def _section(at: Any, values: Any, name: str, kind: str) -> Any:
    """Return a section of a profile; of ``<name>``, the first of the kind; ``...``: none."""
    above, named, _ = name.partition(".<name>")
    found = at(values, above)
    if not named:
        there = isinstance(found, dict) and (not kind or kind in map(str, found.values()))
        return found if there else ...
    entries = found.values() if isinstance(found, dict) else ()
    return next((one for one in entries if one.get("objective") == kind), ...)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _short(value: str) -> str:
    """Return a value for a cell: a section is shown in its own table."""
    return "…" if value.startswith("{") else value


def _texts(command: Any, above: str) -> Iterator[str]:
    """Yield the text of a command, and of those below it."""
    name = f"{above} {command.name}"
    context = command.make_context(command.name, [], resilient_parsing=True)
    below = getattr(command, "commands", {}).values()
    usage = " ".join(command.collect_usage_pieces(context)).removeprefix("[OPTIONS]").strip()
    parameters = [one for one in command.get_params(context) if one.name != "help"]
    paragraphs = [
        textwrap.fill(paragraph, _WIDTH) for paragraph in command.help.strip().split("\n\n")
    ]
    options = [_option(*one.get_help_record(context)) for one in parameters]
    yield "\n".join(
        [f"### `{' '.join([name, usage]).strip()}`", "", "\n\n".join(paragraphs), ""]
        + ([*options, ""] if options else [])
    )
    for one in below:
        yield from _texts(one, name)


def _option(names: str, meaning: str) -> str:
    text = f"- `{names}`" + (f": {' '.join(meaning.split())}" if meaning else "")
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)


if __name__ == "__main__":
    sys.stdout.write(settings_page() if sys.argv[1:] == ["settings"] else page())
