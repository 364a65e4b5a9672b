import numpy as np
import pytest

from atelier.metrics.vendi import vendi


def test_equal_pictures_count_one_and_right_angles_count_each():
    assert vendi(np.ones((5, 3))) == pytest.approx(1)
    assert vendi(3 * np.eye(4)) == pytest.approx(4)
    assert vendi(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3)


def test_two_pictures_by_hand():
    # K = [[1, 0.6], [0.6, 1]]; K / 2 has eigenvalues 0.8 and 0.2
    expected = np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))

    assert vendi(np.array([[2.0, 0.0], [0.6, 0.8]])) == pytest.approx(expected)


def test_wide_and_tall_sets_are_measured_alike():
    tall = np.random.default_rng(0).normal(size=(30, 6))
    rows = tall / np.linalg.norm(tall, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(rows @ rows.T / 30)
    values = values[values > 1e-12]

    assert vendi(tall) == pytest.approx(np.exp(-(values * np.log(values)).sum()))
    padded = np.pad(tall, ((0, 0), (0, 40)))  # more features than pictures, nothing new in them
    assert vendi(padded) == pytest.approx(vendi(tall))


def test_no_pictures_have_no_diversity():
    with pytest.raises(ValueError, match="no diversity"):
        vendi(np.empty((0, 4)))
