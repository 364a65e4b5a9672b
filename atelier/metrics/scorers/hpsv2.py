"""HPSv2, versions 2.0 and 2.1: predicted human preference between pictures of a caption."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atelier.images import Pixels
from atelier.metrics import scorer
from atelier.metrics.about import About
from atelier.metrics.scorer import Compute, Scorer
from atelier.metrics.scorers import clip

V20 = About(
    name="hpsv2.0",
    label="HPSv2.0",
    says="Higher: people would rather choose this picture for the caption.",
    scale="the cosine, without logit scale, mostly 0.2 to 0.35; the official command prints a "
    "hundred times this in places. 2.0 and 2.1 are different networks: never compare across",
    preprocessing="[0, 1] first, then shorter side to 224 pixels by torchvision's bicubic "
    "filter on tensors with antialias (the official code on an old torchvision had none, which "
    "moves the score), middle square, OpenAI's mean and deviation; open_clip's tokenizer, 77 "
    "tokens",
    better="higher",
    weights=("hpsv2.0",),
    reads_prompt=True,
    version="1",
    digits=4,
)
V21 = replace(V20, name="hpsv2.1", label="HPSv2.1", weights=("hpsv2.1",))
_FILES = {V20.name: "HPS_v2_compressed.pt", V21.name: "HPS_v2.1_compressed.pt"}
_ARCHITECTURE = "ViT-H-14"


def hpsv2(pictures: Tensor, texts: Tensor) -> Tensor:
    """Return the cosine of each picture and its caption, float32 ``[B]``, in [-1, 1].

    Args:
        pictures: Embeddings, of any length, ``[B, D]``.
        texts: Of the captions, ``[B, D]``.

    References:
        Wu et al., Human Preference Score v2, arXiv:2306.09341, Eq. 1.
    """
    return (scorer.unit(pictures) * scorer.unit(texts)).sum(dim=1)


def preprocess(images: Sequence[Pixels], side: int) -> Tensor:
    """Return pictures as HPSv2 was evaluated, float32 ``[B, 3, S, S]``.

    Unlike CLIP's own way the picture is made float before it is resampled, so nothing is
    rounded or clipped in between.
    """
    from torchvision.transforms import functional as vision
    from torchvision.transforms.functional import InterpolationMode

    return torch.cat(
        [
            clip.normalised(
                vision.center_crop(
                    vision.resize(
                        torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255,
                        side,
                        InterpolationMode.BICUBIC,
                        antialias=True,
                    ),
                    [side, side],
                )
            )
            for image in images
        ]
    )


def scoring(network: Any, words: Any, compute: Compute) -> Scorer:
    """Return the scorer around an open_clip network.

    Args:
        network: With ``encode_image``, ``encode_text`` and ``visual.image_size``.
        words: Its tokenizer: captions to ``[B, L]``.
        compute: Where the network is.
    """
    side = network.visual.image_size
    side = side[0] if isinstance(side, tuple) else side

    @torch.no_grad()
    def score(images: Sequence[Pixels], prompts: Sequence[str]) -> NDArray[np.float64]:
        pixels = preprocess(images, side).to(compute.device, compute.torch_dtype)
        tokens = words(list(prompts)).to(compute.device)
        return scorer.numbers(hpsv2(network.encode_image(pixels), network.encode_text(tokens)))

    return score


def load(folder: Path, compute: Compute, *, name: str) -> Scorer:
    """Return the scorer of one version with weights from ``folder``."""
    import open_clip

    from atelier.models.denoiser import quiet

    path = folder / "hpsv2" / _FILES[name]
    tensors = scorer.read_pickle(path)
    with quiet():
        network = open_clip.create_model(_ARCHITECTURE, pretrained=None)
    scorer.fill(network, tensors.get("state_dict", tensors), path, spare=frozenset())
    return scoring(compute.place(network), open_clip.get_tokenizer(_ARCHITECTURE), compute)
