import pytest

from atelier.criteria import annotations
from atelier.criteria.annotations import Quarantined
from atelier.criteria.stored.rows import StoredRows
from atelier.errors import AnnotationError, ArtifactError

ROWS = [Quarantined(file=f"{number}.png", reason="ф" * number) for number in range(5)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_rows_are_those_of_the_file_however_its_lines_end(tmp_path, end, last):
    file = tmp_path / "rows.jsonl"
    text = (annotations.lines(ROWS).rstrip("\n") + last).replace("\n", end)
    file.write_bytes(text.encode())

    found = StoredRows(file, Quarantined)

    assert len(found) == 5
    assert list(found) == ROWS
    assert [found[place] for place in (3, 0, -1)] == [ROWS[3], ROWS[0], ROWS[-1]]
    assert found[1:4:2] == ROWS[1:4:2]
    with pytest.raises(IndexError):
        found[5]


def test_a_file_that_does_not_fit_or_is_absent_is_refused_at_once(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(annotations.lines(ROWS) + "{}\n")

    with pytest.raises(AnnotationError, match=r"rows.jsonl, line 6 does not fit"):
        StoredRows(file, Quarantined)
    with pytest.raises(ArtifactError, match=r"absent.jsonl is absent"):
        StoredRows(tmp_path / "absent.jsonl", Quarantined)


def test_a_file_that_changes_in_the_meantime_is_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(annotations.lines(ROWS))
    found = StoredRows(file, Quarantined)
    file.write_text(annotations.lines(ROWS[:2]))

    assert found[1] == ROWS[1]
    with pytest.raises(ArtifactError, match=r"rows.jsonl was changed while it was in use"):
        found[4]
