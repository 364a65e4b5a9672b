"""The page docs/commands.md, from the help of all commands: ``python -m cli.documentation``."""

import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from typer.main import get_command

from cli.app import app

_WIDTH = 100
_HEAD = """# Commands

`atelier` works in any folder of a clone; paths that you type are relative to that folder.
`atelier --install-completion` adds completion to your shell; `atelier COMMAND --help` prints
the same as this page. It is written by `python -m cli.documentation > docs/commands.md`.
"""


def page() -> str:
    """Return the page: a section for each panel of ``atelier --help``."""
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    sections = [_HEAD]
    for panel, members in groupby(commands, key=lambda command: command.rich_help_panel):
        sections.append(f"## {panel}\n")
        sections += [text for one in members for text in _texts(one, "atelier")]
    return "\n".join(sections)


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
    sys.stdout.write(page())
