"""Progress callback of long functions; the library never prints or logs."""

from collections.abc import Callable, Mapping

# Items done so far, counted from the start, and values to show with them.
Report = Callable[[int, Mapping[str, float]], None]


def silent(done: int, values: Mapping[str, float]) -> None:
    """Ignore the report."""
    del done, values
