import csv

import pytest

from atelier.criteria import annotations, tree
from atelier.criteria.annotations import Record
from atelier.errors import ArtifactError
from tasks import sft
from tasks.commands import conflicts
from tasks.run import paths


@pytest.fixture
def judged(studio, notebook):
    """A studio with θ1, in whose images two criteria are active."""
    sft.run(studio, notebook)
    leaves = list(tree.parse(paths.JUDGED_BY).leaves())
    records = annotations.read(paths.SPLIT / "train.jsonl", Record)
    poles = {"positive": leaves[:1], "negative": leaves[1:2]}
    both = [record.model_copy(update=poles) for record in records]
    (paths.SPLIT / "train.jsonl").write_text(annotations.lines(both))
    return studio, leaves[:2]


def test_every_two_active_criteria_are_compared(judged, capsys):
    profile, leaves = judged

    table = conflicts.run(profile, conflicts.Look(images=6, times=2))

    (row,) = csv.DictReader(table.read_text().splitlines())
    assert [row["criterion"], row["other"]] == leaves
    assert -1 <= float(row["low"]) <= float(row["cosine"]) <= float(row["high"]) <= 1
    assert row["images"] == "6"
    assert (conflicts.FOLDER / "cosines.png").stat().st_size > 1000
    assert "pairs fight" in capsys.readouterr().out


def test_the_same_look_finds_the_same(judged):
    profile, _ = judged

    once = conflicts.run(profile, conflicts.Look(images=5, times=1)).read_text()

    assert conflicts.run(profile, conflicts.Look(images=5, times=1)).read_text() == once


def test_too_few_images_are_refused(judged):
    profile, _ = judged

    with pytest.raises(ArtifactError, match="2 training images have two active criteria"):
        conflicts.run(profile, conflicts.Look(images=2, times=1))
