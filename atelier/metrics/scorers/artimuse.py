"""ArtiMuse: predicted beauty of a work of art, by an InternVL3 that experts' ratings taught.

It rates from 0 to 100 by one word of a hundred and one, ``aa`` to ``ey``; the score is the mean
of these ratings, each weighted by how likely its word is. The publisher's own network classes
are not needed: transformers has InternVL, and only the names of the weights differ.
"""

import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from atelier.errors import ArtifactError
from atelier.images import Pixels
from atelier.metrics import scorer
from atelier.metrics.about import About
from atelier.metrics.scorer import Compute, Scorer
from atelier.metrics.scorers import vision_language

ABOUT = About(
    name="artimuse",
    label="ArtiMuse",
    says="Higher: experts of art would rate it higher as a picture, whatever its caption says.",
    scale="mean rating, 0 to 100",
    preprocessing="to 448 by 448 pixels whatever its shape, by Pillow's bicubic filter, "
    "[0, 1], ImageNet's mean and deviation; InternVL's chat with the publisher's question",
    better="higher",
    weights=("artimuse",),
    reads_prompt=False,
    version="1",
    digits=1,
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_SEEN = "<IMG_CONTEXT>"
# InternVL's chat: what stands before the question, and between it and the answer.
_CHAT = (
    "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n<img>{seen}</img>\n{question}"
    "<|im_end|>\n<|im_start|>assistant\n"
)
# Of the publisher's weights: how transformers calls them, in this order.
_NAMES = (
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "model.multi_modal_projector.linear_2."),
    (r"^vision_model\.", "model.vision_tower."),
    (r"\.embeddings\.class_embedding$", ".embeddings.cls_token"),
    (r"\.embeddings\.patch_embedding\.", ".embeddings.patch_embeddings.projection."),
    (r"\.embeddings\.position_embedding$", ".embeddings.position_embeddings"),
    (r"\.encoder\.layers\.", ".encoder.layer."),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.ls([12])$", r".lambda_\1"),
)
_JOINED = re.compile(r"\.attn\.qkv\.(weight|bias)$")  # query, key and value in one


def ratings() -> list[str]:
    """Return the words of the ratings 0 to 100."""
    first = [("a", 26), ("c", 25), ("d", 25), ("e", 25)]
    return [a + b for a, count in first for b in string.ascii_lowercase[:count]]


def artimuse(logits: Tensor, words: Tensor) -> Tensor:
    """Return the mean rating of each picture, float32 ``[B]``, in [0, 100].

    Args:
        logits: Of the word that would follow, ``[B, V]``.
        words: Place of each rating's word in the vocabulary, ``[101]``.

    References:
        Cao et al., ArtiMuse, arXiv:2507.14533, section 4; Wu et al., Q-Align, arXiv:2312.17090.
    """
    chances = logits[:, words].float().softmax(dim=-1)
    return chances @ torch.arange(len(words), dtype=torch.float32, device=logits.device)


def preprocess(images: Sequence[Pixels], side: int) -> Tensor:
    """Return pictures as the network was taught with, float32 ``[B, 3, S, S]``."""
    resized = [
        np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
        for image in images
    ]
    pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]


def scoring(network: Any, tokenizer: Any, asked: str, compute: Compute) -> Scorer:
    """Return the scorer around a network.

    Args:
        network: An InternVL, placed where ``compute`` says.
        tokenizer: Its own.
        asked: The whole chat, up to where the answer begins.
        compute: Where the network is.
    """
    words = torch.tensor(tokenizer.convert_tokens_to_ids(ratings()), device=compute.device)
    ids = tokenizer(asked, return_tensors="pt")["input_ids"].to(compute.device)
    eyes = network.config.vision_config
    side = eyes.image_size[0] if isinstance(eyes.image_size, (list, tuple)) else eyes.image_size

    @torch.no_grad()
    def score(images: Sequence[Pixels], prompts: Sequence[str]) -> NDArray[np.float64]:
        del prompts
        pixels = preprocess(images, side).to(compute.device, compute.torch_dtype)
        rows = ids.expand(len(images), -1)
        found = network(
            input_ids=rows,
            attention_mask=torch.ones_like(rows),
            pixel_values=pixels,
            use_cache=False,
            logits_to_keep=1,
        )
        return scorer.numbers(artimuse(found.logits[:, -1], words))

    return score


def chat(system: str, question: str, tokens: int) -> str:
    """Return what is asked, up to where the answer begins; a picture is ``tokens`` long."""
    return _CHAT.format(system=system, seen=_SEEN * tokens, question=question)


def load(folder: Path, compute: Compute) -> Scorer:
    """Return the scorer with weights from ``folder``."""
    from transformers import AutoTokenizer, InternVLForConditionalGeneration

    home = folder / "artimuse"
    tokenizer = vision_language.opened(AutoTokenizer.from_pretrained, home)
    unknown = [w for w in (*ratings(), _SEEN) if w not in tokenizer.get_vocab()]
    if unknown:
        raise ArtifactError(
            f"the tokenizer in {home} has no word {unknown[0]!r}; fetch it again"
        )
    config = read_config(home / "config.json", tokenizer.convert_tokens_to_ids(_SEEN))
    path = home / vision_language.INDEX
    weights = renamed(vision_language.tensors(path))
    network = vision_language.fill(
        InternVLForConditionalGeneration, config, weights, path, compute
    )
    question = vision_language.published(
        home / "modeling_artimuse.py", "Rate the aesthetics score of the image"
    )
    system = vision_language.keyword(home / "conversation.py", "internvl2_5", "system_message")
    asked = chat(system, question, config.image_seq_length)
    return scoring(network, tokenizer, asked, compute)


def read_config(path: Path, seen: int) -> Any:
    """Return transformers' config from the publisher's.

    Args:
        path: ``config.json`` of InternVL's own code.
        seen: The token that stands for a part of a picture.

    Raises:
        ArtifactError: It describes another network.
    """
    from transformers import InternVLConfig

    from atelier import reading

    try:
        said = reading.json_values(path.read_text(encoding="utf-8"))
        eyes, text = said["vision_config"], said["llm_config"]
        side, patch = eyes["image_size"], eyes["patch_size"]
        shrink = said["downsample_ratio"]
        known = (
            said["select_layer"] == -1
            and said.get("ps_version", "v2") == "v2"
            and not eyes.get("qk_normalization", False)
            and text["model_type"] == "qwen2"
        )
        vision = {
            "hidden_size": eyes["hidden_size"],
            "intermediate_size": eyes["intermediate_size"],
            "num_hidden_layers": eyes["num_hidden_layers"],
            "num_attention_heads": eyes["num_attention_heads"],
            "hidden_act": eyes["hidden_act"],
            "norm_type": eyes["norm_type"],
            "layer_norm_eps": eyes["layer_norm_eps"],
            "attention_bias": eyes["qkv_bias"],
            "image_size": [side, side],
            "patch_size": [patch, patch],
        }
    except (OSError, UnicodeDecodeError, reading.UnreadableError, LookupError, TypeError) as e:
        raise ArtifactError(
            f"{path} is no config of InternVL ({type(e).__name__}: {e}); run `atelier weights "
            "--check artimuse`"
        ) from None
    if not known:
        raise ArtifactError(f"{path} describes another network than ArtiMuse's InternVL3")
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=seen,
        image_seq_length=round((side // patch * shrink) ** 2),
        downsample_ratio=shrink,
        tie_word_embeddings=bool(text.get("tie_word_embeddings", False)),
    )


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the publisher's weights as transformers calls them."""
    found = {}
    for name, tensor in weights.items():
        joined = _JOINED.search(name)
        parts = [(name, tensor)]
        if joined:
            stem = name[: joined.start()]
            parts = [
                (f"{stem}.attention.{what}_proj.{joined[1]}", part.contiguous())
                for what, part in zip("qkv", tensor.chunk(3), strict=True)
            ]
        for one, part in parts:
            called = one
            for pattern, name_there in _NAMES:
                called = re.sub(pattern, name_there, called)
            found[called] = part
    return found
