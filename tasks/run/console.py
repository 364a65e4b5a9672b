"""The console that commands print tables and sentences to."""

from rich.console import Console

WIDTH = 118  # columns where the output is no terminal


def console() -> Console:
    """Return standard output; wide enough for tables where it is a file or a pipe."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def say(text: str) -> None:
    """Print a sentence as it is: not wrapped, no markup."""
    console().print(text, soft_wrap=True, markup=False, highlight=False)
