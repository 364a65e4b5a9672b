"""ImageReward: predicted human rating of a picture for its caption.

The image-reward package is written for transformers 4 and imports OpenAI's ``clip`` and its own
trainer at the top. ``module`` gives its network back on transformers 5: the three functions
that moved or went are put where it looks, and its ``__init__`` is passed over.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atelier.errors import ArtifactError
from atelier.images import Pixels
from atelier.metrics import scorer
from atelier.metrics.about import About
from atelier.metrics.scorer import Compute, Scorer
from atelier.metrics.scorers import clip

ABOUT = About(
    name="imagereward",
    label="ImageReward",
    says="Higher: experts would rank it higher for its caption, by fidelity and quality.",
    scale="(reward - 0.167) / 1.033: about mean 0 and deviation 1 over the pictures that it "
    "was taught with, mostly -2 to 2",
    preprocessing="shorter side to 224 pixels by Pillow's bicubic filter, middle square, "
    "[0, 1], OpenAI's mean and deviation; captions by BERT's word pieces, padded and cut at 35 "
    "tokens",
    better="higher",
    weights=("imagereward",),
    reads_prompt=True,
    version="1",
    digits=3,
)
_SIDE, _TOKENS = 224, 35
# Buffers that transformers 5 no longer keeps.
_SPARE = frozenset({"blip.text_encoder.embeddings.position_ids"})


def imagereward(network: Any, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Return ``(MLP(BLIP(picture, caption)) - mean) / deviation`` of each pair.

    Args:
        network: The package's ``ImageReward``.
        pixels: As CLIP is given them, ``[B, 3, 224, 224]``.
        tokens: Of the captions, ``[B, 35]``.
        mask: 1 where there is a token, ``[B, 35]``.

    Returns:
        Scores, float32 ``[B]``.

    References:
        Xu et al., ImageReward, arXiv:2304.05977, section 2.3.
    """
    seen = network.blip.visual_encoder(pixels)
    said = network.blip.text_encoder(
        tokens,
        attention_mask=mask,
        encoder_hidden_states=seen,
        encoder_attention_mask=torch.ones(
            seen.shape[:-1], dtype=torch.long, device=seen.device
        ),
        return_dict=True,
    )
    # The head in float32: rewards of two painters differ by less than bfloat16 resolves.
    reward: Tensor = network.mlp.float()(said.last_hidden_state[:, 0].float()).squeeze(1)
    return (reward - float(network.mean)) / float(network.std)


def scoring(network: Any, compute: Compute) -> Scorer:
    """Return the scorer around a network of the package, placed where ``compute`` says."""

    @torch.no_grad()
    def score(images: Sequence[Pixels], prompts: Sequence[str]) -> NDArray[np.float64]:
        words = network.blip.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=_TOKENS,
            return_tensors="pt",
        ).to(compute.device)
        pixels = clip.preprocess(images, _SIDE).to(compute.device, compute.torch_dtype)
        return scorer.numbers(
            imagereward(network, pixels, words["input_ids"], words["attention_mask"])
        )

    return score


def load(folder: Path, compute: Compute) -> Scorer:
    """Return the scorer with weights from ``folder``."""
    from transformers import AutoTokenizer

    home = folder / "imagereward"
    words = AutoTokenizer.from_pretrained(home / "words", local_files_only=True)
    network = build(home / "med_config.json", words)
    path = home / "ImageReward.pt"
    scorer.fill(network, scorer.read_pickle(path), path, spare=_SPARE)
    return scoring(compute.place(network), compute)


def build(med_config: Path, words: Any, eye: tuple[Any, int] | None = None) -> Any:
    """Return the package's network, untrained.

    Args:
        med_config: Its description of the text encoder.
        words: A BERT tokenizer, to which the two tokens of BLIP are added.
        eye: Another picture encoder and its width; None: ViT-L/16, the one that was trained.

    Raises:
        ArtifactError: The tokenizer does not belong to the network.
    """
    words.add_special_tokens({"bos_token": "[DEC]"})
    words.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    words.enc_token_id = words.convert_tokens_to_ids("[ENC]")
    rewards = module()
    pretrain: Any = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    before = pretrain.init_tokenizer, pretrain.create_vit
    pretrain.init_tokenizer = lambda: words
    if eye is not None:
        pretrain.create_vit = lambda *_, **__: eye
    try:
        network = rewards.ImageReward(med_config=str(med_config), device="cpu")
    finally:
        pretrain.init_tokenizer, pretrain.create_vit = before
    expected = network.blip.text_encoder.config.vocab_size
    if len(words) != expected:
        raise ArtifactError(
            f"the tokenizer of {med_config} has {len(words)} tokens, but the network expects "
            f"{expected}; run `atelier weights --check imagereward`"
        )
    return network


def module() -> types.ModuleType:
    """Return ``ImageReward.ImageReward``, importable and runnable on transformers 5."""
    from transformers import modeling_utils, pytorch_utils

    for name in ("apply_chunking_to_forward", "prune_linear_layer"):
        if not hasattr(modeling_utils, name):
            setattr(modeling_utils, name, getattr(pytorch_utils, name))
    if not hasattr(modeling_utils, "find_pruneable_heads_and_indices"):
        modeling_utils.find_pruneable_heads_and_indices = _refuse
    if "ImageReward" not in sys.modules:
        _without_init("ImageReward")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rewards = importlib.import_module("ImageReward.ImageReward")
        med = importlib.import_module("ImageReward.models.BLIP.med")
    for owner, name, value in (
        (med.BertPreTrainedModel, "get_head_mask", _no_head_mask),
        (med.BertPreTrainedModel, "invert_attention_mask", _inverted),
        (med.BertModel, "all_tied_weights_keys", {}),
    ):
        if not hasattr(owner, name):
            setattr(owner, name, value)
    return rewards


def _without_init(package: str) -> None:
    """Make a package and its ``models`` importable without running their ``__init__``."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError("image-reward is not installed; run `make`, which installs it")
    root = Path(next(iter(spec.submodule_search_locations)))
    for name, path in ((package, root), (f"{package}.models", root / "models")):
        empty = types.ModuleType(name)
        empty.__path__ = [str(path)]
        empty.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = empty


def _no_head_mask(self: Any, head_mask: Any, layers: int, chunked: bool = False) -> list[None]:
    del self, chunked
    if head_mask is not None:
        _refuse()
    return [None] * layers


def _inverted(self: Any, mask: Tensor) -> Tensor:
    """Turn 1 and 0 into 0 and the least number, broadcast over heads and queries."""
    wide = mask[:, None, :, :] if mask.dim() == 3 else mask[:, None, None, :]
    inverted: Tensor = (1 - wide.to(self.dtype)) * torch.finfo(self.dtype).min
    return inverted


def _refuse(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("ImageReward is only asked, never pruned")
