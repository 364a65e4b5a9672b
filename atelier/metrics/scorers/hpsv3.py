"""HPSv3: predicted human preference, by a Qwen2-VL with a head that rates.

The network reads the picture, its caption and an instruction that ends in a token of its own;
three linear layers turn the state at that token into the mean and the logarithm of the spread
of a rating. The mean is the score.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from atelier.images import Pixels
from atelier.metrics import scorer
from atelier.metrics.about import About
from atelier.metrics.scorer import Compute, Scorer
from atelier.metrics.scorers import vision_language

ABOUT = About(
    name="hpsv3",
    label="HPSv3",
    says="Higher: people would rather choose this picture for the caption.",
    scale="the mean of a predicted rating without fixed ends; only differences between "
    "pictures of one caption were taught",
    preprocessing="to about 256·28² pixels in the picture's own shape, sides multiples of 28, "
    "by Pillow's bicubic filter; OpenAI's mean and deviation; Qwen2-VL's chat with the "
    "publisher's instruction",
    better="higher",
    weights=("hpsv3",),
    reads_prompt=True,
    version="1",
    digits=2,
)
TOKEN = "<|Reward|>"  # noqa: S105 - a word of the vocabulary
_PIXELS = 256 * 28 * 28
_WIDTHS = (1024, 16)
_OUTPUTS = 2  # the mean, and the logarithm of the spread
_HEAD = "rm_head."


class Network(nn.Module):
    """A Qwen2-VL without its language head, and the head that rates."""

    def __init__(self, reader: Any, head: nn.Module) -> None:
        super().__init__()
        self.reader, self.head = reader, head


def head(width: int) -> nn.Sequential:
    """Return the untrained head; its dropout is idle when it is asked."""
    first, second = _WIDTHS
    return nn.Sequential(
        nn.Linear(width, first), nn.ReLU(), nn.Dropout(0.05),
        nn.Linear(first, second), nn.ReLU(), nn.Linear(second, _OUTPUTS),
    )  # fmt: skip


def hpsv3(network: Network, inputs: Mapping[str, Tensor], token: int) -> Tensor:
    """Return the rating of each picture, float32 ``[B]``.

    Positions simply count the tokens, pictures' tokens too: the publisher's code hands none to
    the language model, which then counts.

    Args:
        network: The network.
        inputs: ``input_ids``, ``attention_mask``, ``[B, L]``, ``pixel_values`` and
            ``image_grid_thw`` of the processor.
        token: The one whose state is rated; each row has it once.

    References:
        Ma et al., HPSv3: Towards Wide-Spectrum Human Preference Score, arXiv:2508.03789.
    """
    words = inputs["input_ids"]
    positions = torch.arange(words.shape[1], device=words.device).expand(3, *words.shape)
    states = network.reader(
        input_ids=words,
        attention_mask=inputs["attention_mask"],
        pixel_values=inputs["pixel_values"],
        image_grid_thw=inputs["image_grid_thw"],
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    rated = states[words == token].float()
    if len(rated) != len(words):
        raise ValueError(f"{len(rated)} tokens to rate in {len(words)} rows")
    ratings: Tensor = network.head(rated)
    return ratings[:, 0]


def sized(image: Pixels) -> Image.Image:
    """Return a picture of about as many pixels as all others, in its own shape."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    picture = Image.fromarray(image)
    height, width = smart_resize(
        picture.height, picture.width, factor=28, min_pixels=_PIXELS, max_pixels=_PIXELS
    )
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def scoring(network: Network, processor: Any, words: str, compute: Compute) -> Scorer:
    """Return the scorer around a network.

    Args:
        network: Placed where ``compute`` says.
        processor: Qwen2-VL's, whose tokenizer knows ``TOKEN``.
        words: The instruction, with a place ``{text_prompt}`` for the caption.
        compute: Where the network is.
    """
    token = processor.tokenizer.convert_tokens_to_ids(TOKEN)

    @torch.no_grad()
    def score(images: Sequence[Pixels], prompts: Sequence[str]) -> NDArray[np.float64]:
        inputs = processor(
            text=vision_language.asked(processor, words, "{text_prompt}", prompts),
            images=[sized(image) for image in images],
            do_resize=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        return scorer.numbers(hpsv3(network, vision_language.to(compute, inputs), token))

    return score


def load(folder: Path, compute: Compute) -> Scorer:
    """Return the scorer with weights from ``folder``; the head stays in float32."""
    from transformers import AutoProcessor, Qwen2VLConfig

    home = folder / "hpsv3"
    code = home / "data_collator_qwen.py"
    words = vision_language.published(code, "You are tasked with evaluating a generated image")
    words += vision_language.published(
        code, f"Please provide the overall ratings of this image: {TOKEN}"
    )
    processor = vision_language.opened(AutoProcessor.from_pretrained, home / "words")
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [TOKEN]})
    config = vision_language.opened(Qwen2VLConfig.from_pretrained, home / "words")
    config.text_config.vocab_size = len(processor.tokenizer)
    path = home / "HPSv3.safetensors"
    network = build(config, vision_language.tensors(path), path, compute)
    return scoring(network, processor, words, compute)


def build(config: Any, weights: Mapping[str, Tensor], path: Path, compute: Compute) -> Network:
    """Return the network with the publisher's weights.

    Args:
        config: Qwen2-VL's.
        weights: Of the file, by the names of transformers 4 or 5.
        path: Of the file, for messages.
        compute: Where the network is to be.

    Raises:
        ArtifactError: The weights do not belong to this network.
    """
    from transformers import Qwen2VLModel

    rate = head(config.text_config.hidden_size)
    own = {k.removeprefix(_HEAD): v for k, v in weights.items() if k.startswith(_HEAD)}
    scorer.fill(rate, own, path, spare=frozenset())
    reader = {
        _renamed(name): tensor
        for name, tensor in weights.items()
        if not name.startswith((_HEAD, "lm_head."))
    }
    network = vision_language.fill(Qwen2VLModel, config, reader, path, compute)
    return Network(network, rate.float().to(compute.device)).eval()


def _renamed(name: str) -> str:
    """Return how Qwen2VLModel calls a weight; transformers 4 had `visual` outside `model`."""
    inner = name.removeprefix("model.")
    if inner.startswith(("visual.", "language_model.")):
        return inner
    return f"language_model.{inner}"
