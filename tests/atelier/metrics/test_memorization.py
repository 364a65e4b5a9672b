import tracemalloc

import numpy as np
import pytest
from scipy.spatial import distance

from atelier.metrics import memorization

LEARNED = np.array([[0.0, 0.0], [10.0, 0.0]])


def test_the_nearest_by_hand():
    distances, places = memorization.nearest(np.array([[3.0, 4.0], [9.0, 0.0]]), LEARNED)

    np.testing.assert_allclose(distances, [5, 1])
    assert list(places) == [0, 1]


@pytest.mark.parametrize("offset", [0, 1e6])
def test_the_nearest_are_those_of_all_pairs_to_the_last_bit(offset):
    source = np.random.default_rng(2)
    learned = np.concatenate([source.normal(size=(300, 17)), np.zeros((2, 17))]) + offset
    learned = np.concatenate([learned, learned[:50]])  # the first of two equal ones counts
    pictures = np.concatenate([learned[:30] + 1e-9, source.normal(size=(70, 17)) + offset])

    distances, places = memorization.nearest(pictures, learned)

    every = distance.cdist(pictures, learned)
    np.testing.assert_array_equal(places, every.argmin(axis=1))
    np.testing.assert_array_equal(distances, every.min(axis=1))


def test_of_very_many_unseen_paintings_some_set_the_limit():
    source = np.random.default_rng(3)
    unseen, learned = source.normal(size=(5000, 2)), source.normal(size=(40, 2))

    every = np.quantile(memorization.nearest(unseen, learned)[0], memorization.NEAR)
    found = memorization.memorisation(learned[:3], unseen, learned, list("abc"))

    assert found.limit == pytest.approx(every, rel=0.15)
    assert found.expected == memorization.expected(2000, 3)


def test_a_picture_nearer_than_unseen_paintings_is_near():
    # Unseen paintings lie 1, 2, … 21 away, so 5% of them lie below 2.
    unseen = np.array([[0.0, float(up)] for up in range(1, 22)])
    painted = np.array([[0.0, 0.5], [10.0, 1.9], [0.0, 2.1], [10.0, 30.0]])

    found = memorization.memorisation(painted, unseen, LEARNED, list("abcd"))

    assert found.limit == pytest.approx(2)
    assert found.share.estimate == 0.5
    assert found.closest(2) == [0, 1]
    assert [found.places[place] for place in found.closest(2)] == [0, 1]


def test_copies_are_found_and_new_pictures_of_the_same_kind_are_not():
    generator = np.random.default_rng(0)
    learned, unseen, new = generator.normal(size=(3, 400, 6))
    copies = learned[:40] + generator.normal(scale=0.01, size=(40, 6))

    captions = [str(number) for number in range(400)]
    honest = memorization.memorisation(new, unseen, learned, captions)
    copying = memorization.memorisation(
        np.concatenate([new[40:], copies]), unseen, learned, captions
    )

    assert honest.expected.low < honest.share.estimate < honest.expected.high
    assert copying.share.estimate > copying.expected.high
    assert {copying.places[place] for place in copying.closest(40)} == set(range(40))


def test_the_expected_share_by_hand():
    # The 5% quantile of 21 distances is the second of them: 2 of 22 places lie below it.
    assert memorization.expected(21, 100).estimate == pytest.approx(2 / 22)
    # of 20 it lies 0.95 of the way from the first to the second
    assert memorization.expected(20, 100).estimate == pytest.approx(1.95 / 21)


@pytest.mark.parametrize("unseen", [20, 50, 147])
def test_an_honest_painter_is_where_it_is_expected(unseen):
    """The first version expected 5% of all of them; with 20 test paintings 9.3% are near."""
    random = np.random.default_rng(unseen)
    trials, near, within = 400, 0.0, 0
    captions = [str(number) for number in range(60)]

    for _ in range(trials):
        learned = random.normal(size=(40, 2))
        found = memorization.memorisation(
            random.normal(size=(60, 2)), random.normal(size=(unseen, 2)), learned, captions
        )
        near += found.share.estimate / trials
        within += found.expected.low <= found.share.estimate <= found.expected.high

    expected = memorization.expected(unseen, 60)
    assert near == pytest.approx(expected.estimate, abs=0.012)  # three errors
    assert within / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)


def test_however_many_rows_are_compared_at_once(monkeypatch):
    generator = np.random.default_rng(1)
    pictures, learned = generator.normal(size=(20, 3)), generator.normal(size=(15, 3))
    whole = memorization.nearest(pictures, learned)

    monkeypatch.setattr(memorization, "_ROWS", 7)

    np.testing.assert_array_equal(memorization.nearest(pictures, learned)[1], whole[1])


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="one is none"):
        memorization.memorisation(np.empty((0, 2)), LEARNED, LEARNED, [])


def test_memory_does_not_grow_with_both_corpora():
    rows = np.random.default_rng(0).normal(size=(4096, 4))
    tracemalloc.start()
    memorization.nearest(rows, rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 3 * 512 * 4096 * 8  # all distances would be 134 MB
