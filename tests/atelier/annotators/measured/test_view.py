import numpy as np
import pytest
from scipy import ndimage
from skimage.color import rgb2lab

from atelier.annotators.measured import view


@pytest.fixture
def plane():
    return np.random.default_rng(0).random((46, 61), dtype=np.float32)


def test_lab_is_to_the_last_digit_that_of_skimage():
    every = np.arange(0, 256, 5, dtype=np.uint8)
    pixels = np.stack(np.meshgrid(every, every, every), axis=-1).reshape(52, -1, 3)

    assert np.array_equal(view._lab(pixels), rgb2lab(pixels / 255.0))


@pytest.mark.parametrize("sigma", [0.866, 4.5])
def test_two_products_blur_as_the_filter_does(plane, sigma):
    found = view.blurred(plane, sigma, truncate=3.0)

    filtered = ndimage.gaussian_filter(plane, sigma, mode="nearest", truncate=3.0)
    assert np.allclose(found, filtered, atol=1e-6)
    both = view.blurred(np.stack([plane, 1 - plane]), sigma, truncate=3.0)
    assert np.allclose(both, [found, 1 - found], atol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("percent", [0, 2, 50, 93, 99.7, 100])
def test_percentiles_are_those_of_numpy(plane, percent, kind):
    plane = plane.astype(kind)

    found = view.Ranked(plane).at(percent)

    tolerance = {np.float32: 1e-6, np.float64: 0}[kind]
    assert found == pytest.approx(np.percentile(plane, percent), rel=tolerance, abs=0)


def test_fields_of_unequal_size_are_means_of_their_places(plane):
    fields = view.gridded(plane)

    assert fields[2, 3] == pytest.approx(plane[11:17, 22:30].mean(), rel=1e-5)
    assert fields[7, 7] == pytest.approx(plane[40:, 53:].mean(), rel=1e-5)


@pytest.mark.parametrize("side", [3, 7])
def test_the_largest_around_is_that_of_the_filter(plane, side):
    assert np.array_equal(view.largest_around(plane, side), ndimage.maximum_filter(plane, side))
