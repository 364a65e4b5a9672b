import numpy as np
import pytest

from atelier.metrics import fid


def features(count, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width))


def with_moments(mean, covariance, count=50):
    """Features whose sample mean and covariance are exactly these."""
    raw = features(count, len(mean))
    raw -= raw.mean(axis=0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False)))
    return raw @ whiten.T @ np.linalg.cholesky(np.array(covariance)).T + np.array(mean)


def test_a_set_is_at_no_distance_from_itself():
    same = features(200, 8)

    assert fid.frechet(same, same) == pytest.approx(0, abs=1e-6)


def test_two_gaussians_by_the_closed_form():
    # Diagonal covariances commute: |μ₁-μ₂|² + Σ (σ₁-σ₂)² = (3² + 4²) + (1-2)² + (3-1)² = 30
    painted = with_moments([0, 0], [[1, 0], [0, 9]])
    real = with_moments([3, 4], [[4, 0], [0, 1]])

    assert fid.frechet(painted, real) == pytest.approx(30, rel=1e-9)


def test_two_correlated_gaussians_by_the_closed_form():
    # For 2 × 2: tr √(Σ₁Σ₂) = √(tr Σ₁Σ₂ + 2 √(det Σ₁ det Σ₂)) = √(6 + 2 √(3·3)) = √12
    painted = with_moments([0, 0], [[2, 1], [1, 2]])
    real = with_moments([0, 0], [[2, -1], [-1, 2]])

    assert fid.frechet(painted, real) == pytest.approx(4 + 4 - 2 * 12**0.5, rel=1e-9)


def test_the_order_of_sets_and_a_rotation_of_features_change_nothing():
    painted, real = features(60, seed=1), 2 * features(80, seed=2) + 1
    rotation = np.linalg.qr(features(4, 4, seed=3))[0]

    distance = fid.frechet(painted, real)

    assert fid.frechet(real, painted) == pytest.approx(distance)
    assert fid.frechet(painted @ rotation, real @ rotation) == pytest.approx(distance)


def test_fewer_images_than_features_still_give_a_finite_number():
    painted, real = features(10, 64, seed=1), features(12, 64, seed=2)

    assert np.isfinite(fid.frechet(painted, real))
    assert fid.frechet(painted, painted) == pytest.approx(0, abs=1e-3)


def test_a_distance_says_what_it_was_measured_with():
    distance = fid.distance(features(30), features(40, seed=1), extractor="x", seed=0)

    assert (distance.extractor, distance.painted, distance.real) == ("x", 30, 40)
    assert distance.width == 4


@pytest.mark.parametrize(("painted", "real"), [((1, 4), (9, 4)), ((9, 4), (9, 5))])
def test_sets_that_cannot_be_compared_are_refused(painted, real):
    with pytest.raises(ValueError, match="cannot be compared"):
        fid.distance(features(*painted), features(*real), extractor="x", seed=0)
