"""KID: the kernel distance between two sets of images, with clean-fid's arithmetic.

Shapes: ``N`` images, ``D`` features. Unlike FID it is unbiased: with few images it is
uncertain, but not too large on average.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from atelier.metrics.about import About

_SUBSETS = 100
_SUBSET_IMAGES = 1000

ABOUT = About(
    name="kid",
    label="KID × 1000",
    says="Lower: the pictures are distributed more like the test paintings.",
    scale="unbiased squared MMD under (x·y / D + 1)³, mean of 100 subsets of at most 1000; may "
    "be slightly negative; tables show a thousand times it",
    preprocessing="as FID",
    better="lower",
    weights=(),
    reads_prompt=False,
    version="1",
    digits=1,
)


def kernel(painted: NDArray[np.float64], real: NDArray[np.float64], *, seed: int) -> float:
    """Return the unbiased squared MMD under ``k(x, y) = (x·y / D + 1)³``.

    References:
        Bińkowski et al., Demystifying MMD GANs, arXiv:1801.01401, section 4; clean-fid's code.
    """
    from cleanfid.fid import kernel_distance

    with _global_numpy_seed(seed):
        return float(
            kernel_distance(painted, real, num_subsets=_SUBSETS, max_subset_size=_SUBSET_IMAGES)
        )


@contextlib.contextmanager
def _global_numpy_seed(seed: int) -> Iterator[None]:
    """clean-fid draws from NumPy's global generator; leave it as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
