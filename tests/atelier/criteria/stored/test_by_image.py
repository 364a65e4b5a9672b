import hashlib

import pytest

from atelier.criteria import annotations
from atelier.criteria.annotations import Judgement
from atelier.criteria.stored import by_image
from atelier.criteria.stored.by_image import Judgements, Places
from atelier.errors import AnnotationError, ArtifactError


def image(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def judgement(number, criterion="edges"):
    return Judgement(
        image=image(number), criterion=criterion, pole="positive", annotator="x", confidence=1
    )


@pytest.fixture(params=[1, 3, 1000])
def sorted_in(request, monkeypatch):
    """How many images wait until they are sorted in."""
    monkeypatch.setattr(by_image, "_RECENT", request.param)


def test_places_of_an_image_come_in_the_order_in_which_they_were_added(sorted_in):
    places = Places()
    for number in range(50):
        places.add(image(number % 20), number)

    assert [list(places.of(image(number))) for number in range(20)] == [
        [*range(number, 50, 20)] for number in range(20)
    ]
    assert list(places.of(image(99))) == []
    assert sorted(places.numbers()) == [*range(50)]
    assert [*places.images()] == sorted(
        by_image.short(image(number % 20)) for number in range(50)
    )


def test_images_are_told_by_what_is_held_of_them(sorted_in):
    places = Places()
    for number in range(30):
        places.add(image(number), number)

    held = places.images()

    assert all(by_image.holds(held, image(number)) for number in range(30))
    assert not any(by_image.holds(held, image(number)) for number in range(30, 300))
    assert not by_image.holds(Places().images(), image(0))


def test_judgements_are_found_by_image_wherever_they_stand(tmp_path, sorted_in):
    rows = [judgement(number % 7, f"{number}") for number in range(40)]
    rows += [judgement(9, "a"), judgement(9, "b"), judgement(0, "last")]
    file = tmp_path / "judgements.jsonl"
    file.write_text(annotations.lines(rows))
    seen = []

    found = Judgements(file, lambda number, one: seen.append((number, one)))

    assert seen == [*enumerate(rows, start=1)]
    for number in (*range(7), 9):
        assert found[image(number)] == [one for one in rows if one.image == image(number)]
    assert image(8) not in found
    assert found.get(image(8), []) == []
    assert len(found) == 8
    assert set(found) == {one.image for one in rows}


def test_images_that_share_what_is_held_of_them_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(by_image, "short", lambda image: 1)
    rows = [judgement(number % 3, f"{number}") for number in range(9)]
    file = tmp_path / "judgements.jsonl"
    file.write_text(annotations.lines(rows))

    found = Judgements(file)

    for number in range(3):
        assert found[image(number)] == rows[number::3]
    with pytest.raises(KeyError):
        found[image(3)]


def test_a_file_of_judgements_that_does_not_fit_is_refused_at_once(tmp_path):
    file = tmp_path / "judgements.jsonl"
    file.write_text(annotations.line(judgement(0)) + "[]\n")

    with pytest.raises(AnnotationError, match=r"judgements.jsonl, line 2 does not fit"):
        Judgements(file)


def test_a_file_of_judgements_that_changes_in_the_meantime_is_named(tmp_path):
    file = tmp_path / "judgements.jsonl"
    file.write_text(annotations.lines([judgement(0), judgement(1)]))
    found = Judgements(file)
    file.write_text(annotations.lines([judgement(1), judgement(0)]))

    with pytest.raises(ArtifactError, match=r"judgements.jsonl was changed while it was in"):
        found[image(0)]
