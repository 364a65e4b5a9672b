"""PickScore: predicted choice by users of a text-to-image service."""

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
    name="pickscore",
    label="PickScore",
    says="Higher: users of a text-to-image service would rather pick this picture for the "
    "caption.",
    scale="exp(logit scale) · cos, the official one, mostly 18 to 24; a difference d of two "
    "pictures of one caption is a chance of 1 / (1 + exp(-d)). Some papers print the cosine, "
    "about a hundredth of this",
    preprocessing=clip.HOW.format(side=224, tokens=77),
    better="higher",
    weights=("pickscore",),
    reads_prompt=True,
    version="1",
    digits=2,
)


def pickscore(pictures: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Return ``exp(s) · cos(picture, text)`` of each pair.

    Args:
        pictures: Embeddings, of any length, ``[B, D]``.
        texts: Of the captions, ``[B, D]``.
        logit_scale: ``s``, a learned number of the network.

    Returns:
        Scores, float32 ``[B]``, in nats between two pictures of one caption.

    References:
        Kirstain et al., Pick-a-Pic, arXiv:2305.01569, section 3.
    """
    cosines = (scorer.unit(pictures) * scorer.unit(texts)).sum(dim=1)
    return logit_scale.float().exp() * cosines


def load(folder: Path, compute: Compute) -> Scorer:
    """Return the scorer with weights from ``folder``."""
    network = clip.Clip(folder / "pickscore", compute)

    def score(images: Sequence[Pixels], prompts: Sequence[str]) -> NDArray[np.float64]:
        scale = network.network.logit_scale
        return scorer.numbers(pickscore(network.see(images), network.read(prompts), scale))

    return score
