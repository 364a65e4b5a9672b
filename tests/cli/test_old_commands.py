"""Old commands: each prints its new name and runs it."""

import subprocess
import sys

import pytest
from typer.main import get_command

from cli.app import app
from flows.__main__ import _RENAMED as OF_FLOWS
from tasks.__main__ import _RENAMED as OF_TASKS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["tasks", "paint", "--help"], "generate"),
        (["tasks", "survey", "analyse", "--help"], "survey analyze"),
        (["tasks", "annotate", "--dry-run", "--help"], "estimate annotate"),
        (["flows", "reproduce", "--help"], "run"),
    ],
)
def test_an_old_command_names_and_runs_the_new_one(old, new, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", *old], capture_output=True, text=True, check=True
    )

    typed = " ".join(old).removesuffix(" --help")
    assert done.stderr == f"`python -m {typed}` is now `atelier {new}`\n"
    assert f"Usage: atelier {new.split()[0]}" in done.stdout


def test_every_new_name_exists():
    commands = get_command(app).commands

    for new in (OF_FLOWS | OF_TASKS).values():
        first, *rest = new.split()
        assert first in commands
        if first == "survey" and rest:
            assert rest[0] in commands[first].commands


def test_flows_alone_says_where_the_commands_are():
    done = subprocess.run(
        [sys.executable, "-m", "flows"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (
        2,
        "The commands are `atelier`'s: `atelier --help`\n",
    )
