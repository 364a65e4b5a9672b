import csv
from pathlib import Path

import pytest

from atelier.annotators.comparing import Compared
from atelier.config.pairs import TablePairs
from atelier.criteria import annotations, pairs
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError, ParamsError
from tasks.commands import judge_pairs
from tasks.run import paths
from tests.conftest import GALLERY_CRITERIA


@pytest.fixture
def judged(studio):
    """A studio by criteria of which the measured annotator knows one."""
    paths.JUDGED_BY.write_text(GALLERY_CRITERIA)
    return studio


def test_the_table_is_read_by_the_objectives_on_pairs(judged, capsys):
    out = paths.DATA / ".pairs.csv"

    judge_pairs.run(judged, out, ["light"], neighbours=3, most=1000)

    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert rows
    assert {row["criteria"] for row in rows} == {"1"}
    records = annotations.read(paths.SPLIT / "train.jsonl", Record)
    captions = {record.file: record.caption for record in records}
    for row in rows:
        assert captions[row["file_win"]] == captions[row["file_lose"]] == row["caption"]
    found = pairs.from_table(out, records, paths.DATA)
    assert len(found.pairs) == len(rows)
    assert TablePairs(source="table", table=".pairs.csv")
    assert "have a winner by measured-1" in capsys.readouterr().out


def test_pictures_of_one_caption_meet_once():
    def record(number, caption):
        return Record(
            image=f"{number:064x}",
            file=f"{number}.png",
            caption=caption,
            positive=[],
            negative=[],
        )

    records = [record(number, "a" if number < 4 else "b") for number in range(5)]

    assert sorted(judge_pairs.meetings(records, 1)) == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert len(judge_pairs.meetings(records, 3)) == 6  # each two of four


def test_contradictions_and_ties_say_nothing():
    said = Compared(
        {"a": "first", "b": "first", "c": "second", "d": "neither", "e": "first"},
        {"a": "first", "b": "second", "c": "second", "d": "neither", "e": "first"},
    )

    assert judge_pairs.led(said) == 1


def test_what_cannot_be_compared_says_why(judged):
    with pytest.raises(ParamsError, match="--criterion 'sound' is no criterion or branch"):
        judge_pairs.run(judged, Path("x.csv"), ["sound"], neighbours=1, most=9)

    with pytest.raises(ArtifactError, match="none has a winner by measured-1"):
        judge_pairs.run(judged, Path("x.csv"), ["edges"], neighbours=1, most=9)
