"""``python -m flows <command>``: the old names of `atelier`'s commands."""

import sys

from tasks.run import old_commands

_RENAMED = {
    "reproduce": "run",
    "annotate": "run annotate",
    "evaluate": "run generate",
    "setup": "deploy",
    "compare": "compare --as-flow",
} | {name: name for name in ("doctor", "down", "plan", "serve", "study", "up")}


def main() -> None:
    """Run the new command, or say where the commands are."""
    old_commands.forward("flows", _RENAMED)
    sys.stderr.write("The commands are `atelier`'s: `atelier --help`\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
