"""How every command is parsed and run: quick help, the clone's root, errors as a paragraph."""

import sys
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

from cli import clone


class Command(TyperCommand):
    """A command that runs in the root of the clone and reports errors as one paragraph."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; its options were parsed in the user's own folder."""
        from tasks.run import operator_errors

        users = Path.cwd()
        try:
            with operator_errors.shown():
                clone.enter()
                return super().invoke(ctx)
        finally:
            if note := clone.note(users):
                sys.stderr.write(note + "\n")


class Group(TyperGroup):
    """A group of commands, whose help does not wait for pydantic."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Skip the options that stand before the command, where there are none.

        Typer would import pydantic, 0.1 s, to convert the values of absent options.
        """
        if not args or args[0].startswith("-"):
            return super().parse_args(ctx, args)
        options, self.params, self.add_help_option = self.params, [], False
        try:
            return super().parse_args(ctx, args)
        finally:
            self.params, self.add_help_option = options, True
