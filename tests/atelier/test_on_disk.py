import sqlite3
import tracemalloc
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import DiskError
from atelier.on_disk import Keyed, Lazily, Listed, Texts


class Row(NamedTuple):
    name: str
    where: int | None
    share: float = 0.5
    content: bytes = b"\0\xff"


ROWS = [Row("a", 1), Row("ф\n'\"\0", None, 0.1), Row("", -(2**63), float("inf"), b"")]


def test_a_list_gives_back_what_was_put_in():
    found = Listed(Row, ROWS)
    found.extend(Row(str(number), number) for number in range(5))
    same = [*ROWS, *(Row(str(number), number) for number in range(5))]

    assert found == same
    assert list(found) == same
    assert len(found) == 8
    assert (found[0], found[-1], type(found[2])) == (same[0], same[-1], Row)
    for place in (
        slice(None),
        slice(2, 5),
        slice(-3, None),
        slice(6, 99),
        slice(None, None, -2),
    ):
        assert found[place] == same[place]
    assert found[5:5] == []
    for place in (8, -9):
        with pytest.raises(IndexError):
            found[place]


def test_rows_outlive_the_list_that_they_are_read_from():
    assert [row.name for row in Listed(Row, ROWS)] == [row.name for row in ROWS]
    assert next(iter(Keyed(Row, ROWS))).name == ""


def test_of_two_rows_with_one_key_the_last_stays_unless_it_is_only_added():
    found = Keyed(Row, [Row("a", 1), Row("b", 2), Row("a", 3)])

    assert found.get("a") == Row("a", 3)
    assert not found.add(Row("a", 4))
    assert found.add(Row("c", 5))
    assert [row.where for row in found] == [3, 2, 5]
    assert len(found) == 3
    assert found.has("c")
    assert not found.has("d")
    assert found.get("d") is None


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_texts_have_the_order_of_pythons_own(texts):
    found = Texts(texts)

    assert list(found) == sorted(set(texts))
    assert len(found) == len(set(texts))
    assert all(text in found for text in texts)
    assert "absent\0" not in found


def test_rows_are_not_held_in_memory():
    tracemalloc.start()
    found = Listed(Row, (Row(f"{number:0100}", number) for number in range(20_000)))
    read = sum(len(row.name) for row in found)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert read == 2_000_000
    assert held < 500_000


def test_a_full_disk_says_where_room_is_needed():
    found = Listed(Row)
    found._table.run("PRAGMA max_page_count = 3")

    with pytest.raises(DiskError, match=r"disk is full\. Free some space in /var/tmp, or"):
        found.extend(Row("a" * 1000, number) for number in range(1000))


def test_a_mistake_in_a_row_is_no_disk_error():
    with pytest.raises(sqlite3.ProgrammingError):
        Listed(Row, [Row("a", 1), ("b",)])


def test_items_are_made_when_they_are_asked_for():
    made = []
    found = Lazily([1, 2, 3], lambda one: (made.append(one), 2 * one)[1])

    assert (len(found), found[1], found[-1], found[1:]) == (3, 4, 6, [4, 6])
    assert made == [2, 3, 2, 3]
    assert found == [2, 4, 6]
