"""Vendi score: the effective number of different pictures.

Shapes: ``N`` pictures, ``D`` features.
"""

import numpy as np

from atelier.metrics.about import About
from atelier.metrics.fid import Features

ABOUT = About(
    name="vendi",
    label="Vendi",
    says="Higher: the pictures differ more from each other. Noise differs most of all, so read "
    "it beside the same number for the test paintings.",
    scale="effective number of different pictures, from 1 (all alike) to the number of "
    "pictures; it grows with that number, so compare sets of one size",
    preprocessing="the features that FID compares, rows of length 1; cosine kernel",
    better="higher",
    weights=(),
    reads_prompt=False,
    version="1",
    digits=2,
)


def vendi(features: Features) -> float:
    """Return ``exp(-Σ λ log λ)`` over the eigenvalues λ of ``K / N``, ``K`` the cosines.

    The eigenvalues are not negative and add up to 1, so this is the exponential of an entropy:
    N pictures at right angles count N, N equal ones count 1.

    Args:
        features: ``[N, D]``, no row zero.

    Returns:
        The effective number of different pictures, in [1, min(N, D)].

    Raises:
        ValueError: There is no picture.

    References:
        Friedman & Dieng, The Vendi Score, arXiv:2210.02410, Eq. 1 and Definition 3.1.
    """
    if not len(features):
        raise ValueError("no pictures have no diversity")
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    # X Xᵀ and Xᵀ X have the same eigenvalues except zeros; the smaller one is cheaper.
    gram = rows.T @ rows if rows.shape[1] < len(rows) else rows @ rows.T
    values = np.linalg.eigvalsh(gram / len(rows))
    positive = values[values > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))
