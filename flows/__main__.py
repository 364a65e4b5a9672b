"""``python -m flows <command>``: the old names of `atelier`'s commands."""

import sys

from tasks.run import old_commands

_RENAMED = {
    "reproduce": "run",
    "annotate": "run annotate",
    "evaluate": "run evaluate",
    "setup": "deploy",
} | {name: name for name in ("compare", "doctor", "down", "plan", "serve", "study", "up")}


def main() -> None:
    """Run the new command; ``deps`` alone stays here, for `make deps`."""
    old_commands.forward("flows", _RENAMED)
    if sys.argv[1:] != ["deps"]:
        sys.stderr.write("The commands are `atelier`'s: `atelier --help`\n")
        raise SystemExit(2)
    from flows.dvc import code_deps

    for line in code_deps.rewrite():
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
