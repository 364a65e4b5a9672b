import tracemalloc

import numpy as np
import pytest

from atelier.metrics import memorization

LEARNED = np.array([[0.0, 0.0], [10.0, 0.0]])


def test_the_nearest_by_hand():
    distances, places = memorization.nearest(np.array([[3.0, 4.0], [9.0, 0.0]]), LEARNED)

    np.testing.assert_allclose(distances, [5, 1])
    assert list(places) == [0, 1]


def test_a_picture_nearer_than_unseen_paintings_is_near():
    # Unseen paintings lie 1, 2, … 21 away, so 5% of them lie below 2.
    unseen = np.array([[0.0, float(up)] for up in range(1, 22)])
    painted = np.array([[0.0, 0.5], [10.0, 1.9], [0.0, 2.1], [10.0, 30.0]])

    found = memorization.memorisation(painted, unseen, LEARNED)

    assert found.limit == pytest.approx(2)
    assert found.share.estimate == 0.5
    assert found.closest(2) == [0, 1]
    assert [found.places[place] for place in found.closest(2)] == [0, 1]


def test_copies_are_found_and_new_pictures_of_the_same_kind_are_not():
    generator = np.random.default_rng(0)
    learned, unseen, new = generator.normal(size=(3, 400, 6))
    copies = learned[:40] + generator.normal(scale=0.01, size=(40, 6))

    honest = memorization.memorisation(new, unseen, learned).share
    copying = memorization.memorisation(np.concatenate([new[40:], copies]), unseen, learned)

    assert honest.low < memorization.NEAR < honest.high
    assert copying.share.low > memorization.NEAR
    assert {copying.places[place] for place in copying.closest(40)} == set(range(40))


def test_however_many_rows_are_compared_at_once(monkeypatch):
    generator = np.random.default_rng(1)
    pictures, learned = generator.normal(size=(20, 3)), generator.normal(size=(15, 3))
    whole = memorization.nearest(pictures, learned)

    monkeypatch.setattr(memorization, "_ROWS", 7)

    np.testing.assert_array_equal(memorization.nearest(pictures, learned)[1], whole[1])


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="one is none"):
        memorization.memorisation(np.empty((0, 2)), LEARNED, LEARNED)


def test_memory_does_not_grow_with_both_corpora():
    rows = np.random.default_rng(0).normal(size=(4096, 4))
    tracemalloc.start()
    memorization.nearest(rows, rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 3 * 512 * 4096 * 8  # all distances would be 134 MB
