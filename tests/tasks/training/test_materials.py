import pytest

from atelier.criteria.annotations import Record
from tasks.training import materials


def record(caption, negatives):
    return Record.model_construct(caption=caption, negative=["light"] * negatives)


def test_an_advantage_is_against_the_pictures_of_the_same_caption():
    records = [record("a sea", 1), record("a hill", 6), record("a sea", 3), record("a sea", 2)]

    found = materials.advantages(records)

    # Rewards -1, -6, -3, -2: mean -3, deviation sqrt((4 + 9 + 0 + 1) / 4); of the sea -2
    expected = [value / 3.5**0.5 for value in (1, -3, -1, 0)]
    assert found.tolist() == pytest.approx(expected)


def test_pictures_that_are_alike_have_no_advantage():
    assert materials.advantages([record("a sea", 2)] * 3).tolist() == [0, 0, 0]
