"""LAION-Aesthetic: predicted beauty of a picture, whatever it shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from atelier.images import Pixels
from atelier.metrics import scorer
from atelier.metrics.about import About
from atelier.metrics.scorer import Compute, Scorer
from atelier.metrics.scorers import clip

ABOUT = About(
    name="aesthetic",
    label="LAION-Aesthetic",
    says="Higher: people who rated photographs and generated pictures would like it more; the "
    "caption is not read.",
    scale="a regression on ratings from 1 to 10, mostly 4 to 7",
    preprocessing=clip.HOW.format(side=224, tokens=77).split(";")[0]
    + "; embeddings of length 1",
    better="higher",
    weights=("clip-l", "aesthetic"),
    reads_prompt=False,
    version="1",
    digits=2,
)
_FILE = "sac+logos+ava1-l14-linearMSE.pth"
_WIDTHS = (1024, 128, 64, 16, 1)
_DROPOUTS = (0.2, 0.2, 0.1)  # after the first three; idle when it is asked


def head(width: int) -> nn.Sequential:
    """Return the untrained head: linear layers with nothing but dropout between them."""
    layers: list[nn.Module] = []
    for place, outputs in enumerate(_WIDTHS):
        layers.append(nn.Linear(width, outputs))
        layers += [nn.Dropout(share) for share in _DROPOUTS[place : place + 1]]
        width = outputs
    return nn.Sequential(*layers)


def aesthetic(pictures: Tensor, rate: nn.Module) -> Tensor:
    """Return the rating of each picture, float32 ``[B]``.

    Args:
        pictures: Embeddings of CLIP ViT-L/14, of any length, ``[B, 768]``.
        rate: The trained ``head``.

    References:
        Schuhmann, improved-aesthetic-predictor; LAION-5B, arXiv:2210.08402, appendix.
    """
    ratings: Tensor = rate(scorer.unit(pictures))
    return ratings.squeeze(1)


def load(folder: Path, compute: Compute) -> Scorer:
    """Return the scorer with weights from ``folder``; the head stays in float32."""
    network = clip.Clip(folder / "clip-l", compute)
    path = folder / "aesthetic" / _FILE
    rate = head(int(network.network.config.projection_dim))
    tensors = scorer.read_pickle(path)
    named = {name.removeprefix("layers."): value for name, value in tensors.items()}
    scorer.fill(rate, named, path, spare=frozenset())
    rate = rate.to(compute.device).eval()

    @torch.no_grad()
    def score(images: Sequence[Pixels], prompts: Sequence[str]) -> NDArray[np.float64]:
        del prompts
        return scorer.numbers(aesthetic(network.see(images), rate))

    return score
