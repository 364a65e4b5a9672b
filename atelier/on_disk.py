"""On-disk lists and tables of rows, for what a million pictures would fill the memory with.

Rows are named tuples of texts, numbers and bytes. Each list or table is a temporary database of
SQLite: a file without a name, which goes with the process, and of which a few MB are in memory.
SQLite puts it where ``SQLITE_TMPDIR`` or ``TMPDIR`` say, else into ``/var/tmp``.
"""

import contextlib
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

from atelier.errors import DiskError

Item = TypeVar("Item")
Result = TypeVar("Result")
Row = TypeVar("Row", bound=tuple[Any, ...])

_CACHE_KIB = 4096  # of each collection in memory
_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}


class Lazily(Sequence[Result]):
    """What a function makes of each item, made each time it is asked for."""

    def __init__(self, items: Sequence[Item], make: Callable[[Item], Result]) -> None:
        self._items, self._make = items, make

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Result]:
        return map(self._make, self._items)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._make(one) for one in self._items[place]]
        return self._make(self._items[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


class _Table(Generic[Row]):
    """A table in a database of its own."""

    def __init__(self, kind: type[Row], columns: str, options: str = "") -> None:
        names = _fields(kind)
        self._make: Callable[[Iterable[Any]], Row] = cast(Any, kind)._make
        self._names = ", ".join(f'"{name}"' for name in names)
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._base.close)
        self.run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self.run("BEGIN")  # of a transaction that never ends: it is not to outlive the process
        self.run(f"CREATE TABLE rows ({columns.format(names=self._names)}) {options}")
        marks = ", ".join("?" * len(names))
        self._insert = f"INSERT OR {{}} INTO rows ({self._names}) VALUES ({marks})"  # noqa: S608

    def run(self, words: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        with _clear_disk_errors():
            return self._base.execute(words, values)

    def add(self, rows: Iterable[Row]) -> None:
        with _clear_disk_errors():
            self._base.executemany(self._insert.format("REPLACE"), rows)

    def added(self, row: Row) -> bool:
        return self.run(self._insert.format("IGNORE"), row).rowcount == 1

    def rows(self, condition: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """Yield rows, of which a few are in memory at a time."""
        words = f"SELECT {self._names} FROM rows {condition}"  # noqa: S608 - our own words
        for row in self.run(words, values):
            yield self._make(row)

    def count(self) -> int:
        found: int = self.run("SELECT count(*) FROM rows").fetchone()[0]
        return found


class Listed(Sequence[Row]):
    """Rows by their number, in the order in which they were added."""

    def __init__(self, kind: type[Row], rows: Iterable[Row] = ()) -> None:
        self._table = _Table(kind, "number INTEGER PRIMARY KEY, {names}")
        self._count = 0
        self.extend(rows)

    def extend(self, rows: Iterable[Row]) -> None:
        """Put rows behind the others."""
        self._table.add(rows)
        self._count = self._table.count()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        return self._table.rows("ORDER BY number")

    def __getitem__(self, place: Any) -> Any:
        """Return a row, or for a slice a list of rows."""
        if isinstance(place, slice):
            places = range(self._count)[place]
            if places.step != 1:
                return [self[one] for one in places]
            between = (places.start + 1, places.stop)
            return list(
                self._table.rows("WHERE number BETWEEN ? AND ? ORDER BY number", between)
            )
        number = range(self._count)[place] + 1
        return next(self._table.rows("WHERE number = ?", (number,)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # as a list


class Keyed(Generic[Row]):
    """Rows by their first column, which may be any text or bytes, in its order."""

    def __init__(self, kind: type[Row], rows: Iterable[Row] = ()) -> None:
        key = _fields(kind)[0]
        self._table = _Table(kind, f'{{names}}, PRIMARY KEY ("{key}")', "WITHOUT ROWID")
        self._named = f'WHERE "{key}" = ?'
        self._ordered = f'ORDER BY "{key}"'
        self.update(rows)

    def update(self, rows: Iterable[Row]) -> None:
        """Add rows; one with the key of another takes its place."""
        self._table.add(rows)

    def add(self, row: Row) -> bool:
        """Add a row unless another has its key; return whether it was added."""
        return self._table.added(row)

    def get(self, key: str | bytes) -> Row | None:
        """Return the row with this key, or None."""
        return next(self._table.rows(self._named, (key,)), None)

    def has(self, key: str | bytes) -> bool:
        """Say whether there is a row with this key."""
        return self.get(key) is not None

    def __iter__(self) -> Iterator[Row]:
        return self._table.rows(self._ordered)

    def __len__(self) -> int:
        return self._table.count()


class _Text(NamedTuple):
    text: str


class Texts(Collection[str]):
    """Texts, each once, in order."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._rows = Keyed(_Text, map(_Text, texts))

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self._rows.has(text)

    def __iter__(self) -> Iterator[str]:
        return (row.text for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _fields(kind: type[tuple[Any, ...]]) -> tuple[str, ...]:
    """Names of a named tuple's columns."""
    names: tuple[str, ...] = cast(Any, kind)._fields
    return names


@contextlib.contextmanager
def _clear_disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _DISK:
            raise
        raise DiskError(
            f"a temporary database could not be written: {error}. Free some space in /var/tmp, "
            "or let SQLITE_TMPDIR name a folder on another disk, and run the same command "
            "again. Everything finished before this is kept."
        ) from None
