"""UnifiedReward: a Qwen2.5-VL that writes which parts of the caption it sees, and a score."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from atelier.errors import ArtifactError
from atelier.images import Pixels
from atelier.metrics.about import About
from atelier.metrics.scorer import Compute, Scorer
from atelier.metrics.scorers import vision_language

ABOUT = About(
    name="unifiedreward",
    label="UnifiedReward",
    says="Higher: a model taught by several sets of preferences finds the picture good, and "
    "true to its caption.",
    scale="written out by the network as “Final Score”, 1 to 5",
    preprocessing="the processor's own: sides to multiples of 28, OpenAI's mean and deviation; "
    "Qwen2.5-VL's chat with the publisher's question; the likeliest words, 512 at most",
    better="higher",
    weights=("unifiedreward",),
    reads_prompt=True,
    version="1",
    digits=2,
)
_WORDS = 512  # tokens of an answer, as the publisher has it
_SCORE = re.compile(r"Final Score:\D{0,4}(\d+(?:\.\d+)?)")
_LOWEST, _HIGHEST = 1.0, 5.0
_SHOWN = 200


def read(answer: str) -> float:
    """Return the score that an answer ends in.

    Raises:
        ArtifactError: It has none, or one outside of 1 to 5.
    """
    found = _SCORE.findall(answer)
    score = float(found[-1]) if found else float("nan")
    if not _LOWEST <= score <= _HIGHEST:
        raise ArtifactError(
            f"UnifiedReward wrote no score from 1 to 5: {' '.join(answer.split())[:_SHOWN]!r}; "
            "leave unifiedreward out of evaluate.metrics if this happens again"
        )
    return score


def scoring(network: Any, processor: Any, words: str, compute: Compute) -> Scorer:
    """Return the scorer around a network.

    Args:
        network: A Qwen2.5-VL that writes, placed where ``compute`` says.
        processor: Its own.
        words: The question, with a place ``{prompt}`` for the caption.
        compute: Where the network is.
    """

    @torch.no_grad()
    def score(images: Sequence[Pixels], prompts: Sequence[str]) -> NDArray[np.float64]:
        inputs = processor(
            text=vision_language.asked(processor, words, "{prompt}", prompts),
            images=[Image.fromarray(image) for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        written = network.generate(
            **vision_language.to(compute, inputs), max_new_tokens=_WORDS, do_sample=False
        )
        answers = processor.batch_decode(
            written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return np.array([read(answer) for answer in answers])

    return score


def load(folder: Path, compute: Compute) -> Scorer:
    """Return the scorer with weights from ``folder``."""
    from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    home = folder / "unifiedreward"
    words = vision_language.published(
        home / "qwen_point_score_image_generation.py", "You are given a text caption"
    )
    processor = vision_language.opened(AutoProcessor.from_pretrained, home)
    config = vision_language.opened(Qwen2_5_VLConfig.from_pretrained, home)
    path = home / vision_language.INDEX
    network = vision_language.fill(
        Qwen2_5_VLForConditionalGeneration,
        config,
        vision_language.tensors(path),
        path,
        compute,
    )
    return scoring(network, processor, words, compute)
