"""Help: every command is listed in a group, and nothing heavy is imported for it."""

import subprocess
import sys

import pytest
from typer.main import get_command

from cli.app import app

HEAVY = {
    "PIL", "atelier", "diffusers", "dvc", "mlflow", "numpy", "pandas", "prefect", "pydantic",
    "scipy", "torch", "transformers", "yaml",
}  # fmt: skip
ALONE = {
    "agreement", "base", "compare", "conflicts", "deploy", "dials", "doctor", "down",
    "estimate", "export", "features", "generate", "live", "notify", "plan", "registry",
    "results", "run", "serve", "study", "sweep", "up", "vary", "weights",
}  # fmt: skip
GROUPS = {
    "criteria": {"calibrate", "check", "document", "propose", "sheets", "show"},
    "data": {"check", "draw", "unpack"},
    "judge": {"certify", "pairs"},
    "labels": {"compare", "count", "export", "read"},
    "settings": {"explain", "schema"},
    "survey": {
        "analyze", "delete", "export", "invite", "make", "revoke", "serve", "status",
    },
}  # fmt: skip


@pytest.mark.parametrize("words", [[], ["run"], ["criteria"], ["survey", "make"]])
def test_help_imports_nothing_heavy(words, tmp_path):
    show = (
        "import sys; from cli.app import app\n"
        f"try: app({[*words, '--help']})\n"
        "except SystemExit: print('MODULES', *sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", show], capture_output=True, text=True, check=True
    )
    said, _, modules = done.stdout.partition("MODULES")

    assert "Usage: " in said
    assert not HEAVY & set(modules.split())


def test_the_commands_are_these():
    commands = get_command(app).commands

    assert commands.keys() == ALONE | GROUPS.keys()
    for name, expected in GROUPS.items():
        assert commands[name].commands.keys() == expected


def test_every_command_has_a_sentence_and_a_panel():
    for name, command in get_command(app).commands.items():
        assert command.help.split("\n")[0].endswith("."), name
        assert command.rich_help_panel, name
        for below, sub in getattr(command, "commands", {}).items():
            assert sub.help.split("\n")[0].endswith("."), (name, below)


def test_completion_offers_commands_and_stages(tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {annotate: {}, cpo: {}}\n")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")

    assert completed("atelier sur", 1).split() == ["survey"]
    assert completed("atelier run ", 2).split() == ["annotate", "cpo"]


def test_a_completion_script_is_printed_for_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "cli", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        check=False,
        env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "PATH": ""},
    )

    assert done.returncode == 0, done.stderr
    assert "complete -o default -F _atelier_completion atelier" in done.stdout


def completed(line, place):
    """Return what bash would offer at the end of ``line``."""
    done = subprocess.run(
        [sys.executable, "-m", "cli"],
        capture_output=True,
        text=True,
        check=True,
        env={
            "_ATELIER_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(place),
            "PATH": "",
        },
    )
    return done.stdout
