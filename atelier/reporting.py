"""Progress callback of long functions; the library never prints or logs."""

from collections.abc import Callable, Mapping

# What is done so far, counted from the start, and values worth showing beside it.
Report = Callable[[int, Mapping[str, float]], None]


def silent(done: int, values: Mapping[str, float]) -> None:
    """Report to nobody."""
    del done, values
