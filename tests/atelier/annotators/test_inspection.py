import pytest

from atelier import images
from atelier.annotators.inspection import Inspected, Inspector, Limits, Unopened
from atelier.criteria import annotations
from atelier.criteria.stored import by_image
from atelier.reporting import silent

INSPECTOR = Inspector(Limits(smallest_side_pixels=16, largest_pixels=10**6, pixels=None))


@pytest.fixture
def files(tmp_path, paint):
    """Pictures, of which two have the same bytes, one is too small, and one is absent."""
    every = [paint(tmp_path / f"{number}.png", number) for number in range(4)]
    (tmp_path / "same.png").write_bytes(every[1].read_bytes())
    tiny = paint(tmp_path / "tiny.png", 9, size=(15, 40))
    return [*every, tmp_path / "same.png", tiny, tmp_path / "absent.png"]


def inspected(files):
    return [
        INSPECTOR.inspect(file, images.sha256(file))
        if file.exists()
        else Unopened("cannot be opened: No such file or directory")
        for file in files
    ]


@pytest.mark.parametrize("known", [0, 3, 6])
def test_a_journal_gives_what_an_inspection_without_one_does(files, tmp_path, known):
    journal = tmp_path / "journal.jsonl"
    journal.write_text(annotations.lines(inspected(files)[:known]))
    aside = []

    found = INSPECTOR.inspect_many(
        files, lambda done, values: aside.append((done, values["set aside"])), journal
    )

    assert list(found) == inspected(files) == list(INSPECTOR.inspect_many(files, silent))
    assert found[-1] == Unopened("cannot be opened: No such file or directory")
    assert aside == [*((done, 0) for done in range(1, 6)), (6, 1), (7, 2)]


def test_a_picture_that_the_journal_knows_is_not_inspected_again(files, tmp_path, monkeypatch):
    journal = tmp_path / "journal.jsonl"
    journal.write_text(annotations.lines(inspected(files)[:6]))
    monkeypatch.setattr(Inspector, "inspect", None)

    assert isinstance(INSPECTOR.inspect_many(files, silent, journal)[4], Inspected)
    assert journal.read_text() == annotations.lines(
        INSPECTOR.inspect_many(files, silent, journal)[:6]
    )


def test_pictures_that_share_what_is_held_of_them_are_told_apart(files, tmp_path, monkeypatch):
    expected = inspected(files)
    monkeypatch.setattr(by_image, "short", lambda image: 1)
    journal = tmp_path / "journal.jsonl"
    journal.write_text(annotations.line(expected[2]))

    assert list(INSPECTOR.inspect_many(files, silent, journal)) == expected
