"""docs/commands.md against the command line, and every command that a page or message names."""

import re
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from cli import documentation
from cli.app import app

ROOT = Path(__file__).parents[2]
COMMANDS = get_command(app).commands
HISTORY = {"CHANGELOG.md", "docs/log.md"}  # names of their time
BLOCK = re.compile(r"^```\w*[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"^(?:\$ | {4}|\t)?atelier ([a-z][^\n#]*)", re.MULTILINE)
QUOTED = re.compile(r"`atelier ([a-z][^`\n#]*)")


def files():
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.yaml", "*.py", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = (name for name in listed.stdout.split() if not name.startswith("tests/"))
    return sorted(set(ours) - HISTORY)


def test_the_page_of_commands_is_what_the_help_says():
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")

    assert page == documentation.page(), (
        "run `python -m cli.documentation > docs/commands.md`, and read the difference"
    )


def test_the_page_of_settings_is_what_the_schema_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = Path("docs/settings.md").read_text(encoding="utf-8")

    assert page == documentation.settings_page(), (
        "run `python -m cli.documentation settings > docs/settings.md`"
    )


def mistakes(text):
    """Every command or option in ``text`` that the command line does not have."""
    blocks = "\n".join(BLOCK.findall(text))
    for typed in TYPED.findall(blocks) + QUOTED.findall(text):
        first, *rest = typed.split()
        command = COMMANDS.get(first)
        if command is None:
            yield typed
            continue
        below = getattr(command, "commands", {})
        for second in rest[0].split("|") if below and rest else ():
            if second.isalpha() and second.islower() and second not in below:
                yield typed
        if below and rest:
            command = below.get(rest[0], command)
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        words = {word.partition("=")[0] for word in rest if word.startswith("--")}
        yield from (f"{typed}: {word}" for word in words - known - {"--help"})


@pytest.mark.parametrize("file", files())
def test_every_command_that_is_named_exists(file):
    text = (ROOT / file).read_text(encoding="utf-8")

    assert list(mistakes(text)) == []


def test_a_command_that_does_not_exist_is_found():
    assert list(mistakes("`atelier paint`, `atelier labels raed x`")) == [
        "paint",
        "labels raed x",
    ]
    assert list(mistakes("```console\n$ atelier plan --sett a=1\n```\n")) == [
        "plan --sett a=1: --sett"
    ]
    assert list(mistakes("`atelier survey make|invite` and `atelier run annotate`")) == []
