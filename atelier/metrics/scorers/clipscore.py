"""CLIPScore: how well a picture shows its caption."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from atelier.images import Pixels
from atelier.metrics import scorer
from atelier.metrics.about import About
from atelier.metrics.scorer import Compute, Scorer
from atelier.metrics.scorers import clip

ABOUT = About(
    name="clipscore",
    label="CLIPScore",
    says="Higher: the picture shows what its caption says, as CLIP reads both.",
    scale="100 · max(cos, 0), in [0, 100], mostly 15 to 35; Hessel et al. print 2.5 · max(cos, "
    "0) of ViT-B/32 and put 'A photo depicts' before the caption, which is left out here",
    preprocessing=clip.HOW.format(side=224, tokens=77),
    better="higher",
    weights=("clip-l",),
    reads_prompt=True,
    version="1",
    digits=2,
)


def clipscore(pictures: Tensor, texts: Tensor) -> Tensor:
    """Return ``100 · max(cos(picture, text), 0)`` of each pair.

    Args:
        pictures: CLIP's embeddings, of any length, ``[B, D]``.
        texts: Of the captions, ``[B, D]``.

    Returns:
        Scores, float32 ``[B]``, in [0, 100].

    References:
        Hessel et al., CLIPScore, arXiv:2104.08718, section 3, with 100 in place of 2.5.
    """
    return 100 * (scorer.unit(pictures) * scorer.unit(texts)).sum(dim=1).clamp(min=0)


def load(folder: Path, compute: Compute) -> Scorer:
    """Return the scorer with weights from ``folder``."""
    network = clip.Clip(folder / "clip-l", compute)

    def score(images: Sequence[Pixels], prompts: Sequence[str]) -> NDArray[np.float64]:
        return scorer.numbers(clipscore(network.see(images), network.read(prompts)))

    return score
