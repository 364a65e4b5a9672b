import numpy as np
import pytest

from atelier.metrics import kid


def features(count, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width))


def test_kernel_distance_by_hand():
    # D = 1, k(x, y) = (xy + 1)³; painted {1, 1}, real {0, 0}: 8 + 1 - 2·1 = 7
    painted, real = np.ones((2, 1)), np.zeros((2, 1))

    assert kid.kernel(painted, real, seed=0) == pytest.approx(7)


def test_the_kernel_distance_is_seeded_and_leaves_numpys_generator_alone():
    painted, real = features(30, seed=1), features(40, seed=2)
    np.random.seed(9)
    expected = np.random.random()
    np.random.seed(9)

    first, second = (kid.kernel(painted, real, seed=4) for _ in range(2))

    assert first == second
    assert np.random.random() == expected
