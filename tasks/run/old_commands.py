"""Commands under their names before `atelier`: print the new one and run it."""

import os
import sys
from collections.abc import Mapping


def forward(package: str, renamed: Mapping[str, str]) -> None:
    """Replace this process by the new command, if an old one was typed.

    Args:
        package: What was run by ``python -m``.
        renamed: First words of the old commands, and those of the new ones.
    """
    typed = sys.argv[1:]
    for old, new in sorted(renamed.items(), key=lambda pair: -len(pair[0])):
        words = old.split()
        if typed[: len(words)] == words:
            sys.stderr.write(f"`python -m {package} {old}` is now `atelier {new}`\n")
            sys.stderr.flush()
            rest = [*new.split(), *typed[len(words) :]]
            os.execv(sys.executable, [sys.executable, "-m", "cli", *rest])  # noqa: S606
