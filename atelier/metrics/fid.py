"""FID: the Fréchet distance between two sets of images, with clean-fid's arithmetic.

Shapes: ``N`` images, ``D`` features. Compare the numbers only with others of the same extractor
and the same number of images: if N is not far above D, FID is biased upward (Chong & Forsyth,
arXiv:1911.07023). KID is not, so both are reported, with N and D.
"""

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atelier.images import Pixels
from atelier.metrics import kid
from atelier.metrics.about import About

Features = NDArray[np.float64]

ABOUT = About(
    name="fid",
    label="FID",
    says="Lower: the pictures are distributed more like the test paintings.",
    scale="squared distance of two Gaussians in feature units; biased upwards with few images, "
    "so comparable inside one report only",
    preprocessing="as the network that gives the features expects it",
    better="lower",
    weights=(),
    reads_prompt=False,
    version="1",
    digits=2,
)


class Extractor(Protocol):
    """A network that turns images into features."""

    name: str  # shown with every distance

    @property
    def identity(self) -> str:
        """Return a name that changes with the weights; keys the cache of features."""

    def features(self, images: Sequence[Pixels]) -> Features:
        """Return the features of uint8 RGB images ``[H, W, 3]``, float64 ``[N, D]``."""


@dataclass(frozen=True)
class Distance:
    """How far a painter's images lie from real ones.

    Attributes:
        fid: Fréchet distance, squared feature units.
        kid: Kernel distance (unbiased squared MMD), may be slightly negative.
        painted: Number of painted images.
        real: Number of real images.
        extractor: Name of the network whose features were compared.
        width: D; with fewer images than this the covariances are singular.
    """

    fid: float
    kid: float
    painted: int
    real: int
    extractor: str
    width: int


def distance(painted: Features, real: Features, *, extractor: str, seed: int) -> Distance:
    """Return both distances between two sets of features.

    Args:
        painted: Features ``[N, D]``, N ≥ 2.
        real: Features ``[M, D]``, M ≥ 2.
        extractor: Name of the network that they come from.
        seed: Chooses KID's subsets.

    Raises:
        ValueError: A set has fewer than two images, or the widths differ.
    """
    if min(len(painted), len(real)) < 2 or painted.shape[1] != real.shape[1]:
        raise ValueError(f"features {painted.shape} and {real.shape} cannot be compared")
    return Distance(
        fid=frechet(painted, real),
        kid=kid.kernel(painted, real, seed=seed),
        painted=len(painted),
        real=len(real),
        extractor=extractor,
        width=painted.shape[1],
    )


def frechet(painted: Features, real: Features) -> float:
    """Return ``|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 √(Σ₁Σ₂))`` of two sets of features.

    References:
        Heusel et al., arXiv:1706.08500, Eq. 6. Parmar et al., On Aliased Resizing
        (clean-fid), arXiv:2104.11222: this calls their code.
    """
    from cleanfid.fid import frechet_distance

    moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (painted, real)]
    # clean-fid prints, and SciPy warns, when a product is nearly singular; both are expected
    # with few images, and `Distance` carries the counts that say so.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return float(frechet_distance(*moments[0], *moments[1]))


class Inception:
    """Inception V3 as clean-fid uses it: ``clean`` resize to 299 pixels, 2048 features."""

    name = "inception-v3 (clean-fid)"

    def __init__(self, folder: Path, identity: str) -> None:
        """Load the network from ``folder``.

        The file is TorchScript, not a pickle: ``weights_only`` does not apply to it.

        Args:
            folder: Holds ``inception-2015-12-05.pt``.
            identity: Checksum of that file.
        """
        from cleanfid.inception_torchscript import InceptionV3W

        self.identity = f"inception-{identity}"
        self._network = InceptionV3W(str(folder), download=False).eval()

    def features(self, images: Sequence[Pixels]) -> Features:
        """Return the pooled features of each image, ``[N, 2048]``."""
        import torch
        from cleanfid.resize import build_resizer

        resize = build_resizer("clean")
        rows = []
        for start in range(0, len(images), 16):
            batch = np.stack([resize(image) for image in images[start : start + 16]])
            with torch.no_grad():
                rows.append(
                    self._network(torch.from_numpy(batch.transpose(0, 3, 1, 2))).numpy()
                )
        return np.concatenate(rows).astype(np.float64)
