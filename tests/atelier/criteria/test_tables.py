import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.criteria import tables
from atelier.reading import UnreadableError

WANTED = ("file", "caption")
ROW = '{"file": "a.png", "caption": "x"}'
PIECES = [
    "", "\n", "\r\n", "\r", " ", ",", ";", "sep=;\r\n", "sep=,\n", "file,caption\n", '"',
    "a,b\n", "{", "}", "[", "]", ROW, f"{ROW}\n", f"[{ROW}]", '{"a": {"caption": "x"}}',
    '{"a": {"tags": "y"},\n "b": {}}', '{"file": "a", "file": "b"}', '{"file": {}}', "null",
    "1", "\ufeff", "\u2028", "ф",
]  # fmt: skip


def both(folder, content, name):
    """What is read of the bytes, and of a file a line at a time."""
    file = folder / name
    file.write_bytes(content)
    streamed = tables.stream(file, WANTED)
    rows = list(streamed.rows)
    return tables.read(content, name, WANTED), streamed, rows


@given(
    content=st.lists(st.sampled_from(PIECES), max_size=7).map("".join),
    name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json", "t"]),
)
def test_a_file_that_is_read_by_lines_is_the_table_that_is_read_at_once(
    tmp_path_factory, content, name
):
    read, streamed, rows = both(tmp_path_factory.mktemp("table"), content.encode(), name)

    assert rows == read.rows
    assert streamed.columns == read.columns
    assert streamed.mistakes == read.mistakes
    assert streamed.heading == read.heading
    assert list(streamed.rows) == []  # once


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_the_line_that_is_not_utf8_is_named_before_any_row(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"file,caption\na.png,x\nb.png,caf\xe9\n")
    says = r"line 3 is not UTF-8 \(byte 0xe9\); open it in the program"

    with pytest.raises(UnreadableError, match=says):
        tables.stream(file, WANTED)
    with pytest.raises(UnreadableError, match=says):
        tables.read(file.read_bytes(), name, WANTED)


def test_of_json_lines_one_is_in_memory_at_a_time(tmp_path, monkeypatch):
    file = tmp_path / "t.jsonl"
    lines = [json.dumps({"file": f"{number}.png", "caption": "x"}) for number in range(3)]
    file.write_text("\n".join([*lines, "{"]) + "\n")
    table = tables.stream(file, WANTED)

    rows = iter(table.rows)

    assert next(rows).cells["file"] == "0.png"
    assert table.mistakes == []  # of the last line, which was not read yet
    assert [row.line for row in rows] == [2, 3]
    assert len(table.mistakes) == 1
