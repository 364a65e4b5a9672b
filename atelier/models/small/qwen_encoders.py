"""Small Qwen text encoders with random weights: transformers' real Qwen3 and Qwen2.5-VL.

Their tokenizer is Qwen's own class, over the words of a corpus and of the templates into which
pipelines put a prompt: each of these words is one token, as it is in the real vocabulary.
"""

import re
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from atelier.models.small import text_encoders

_HEADS = 2
_SPACE = "Ġ"  # GPT-2's stand-in for the space, which begins a word that is not the first
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
# The chat of Qwen3: what was said, and how the answer begins, without thinking if so asked.
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
_ROLES = "system user assistant"


def qwen3(
    width: int, corpus: Iterable[str], *, layers: int, with_head: bool
) -> tuple[Qwen3ForCausalLM | Qwen3Model, Qwen2Tokenizer]:
    """Return a Qwen3 and its tokenizer, which formats chats.

    Args:
        width: Of its hidden states.
        corpus: Texts.
        layers: Of it, so that a pipeline finds those that it reads.
        with_head: Whether it could go on writing, as in FLUX.2 klein; Z-Image's has no head.
    """
    tokenizer = _tokenizer([*corpus, _ROLES])
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=_HEADS,
        num_key_value_heads=1,
        head_dim=width // _HEADS,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        **_ids(tokenizer),
    )
    encoder = (Qwen3ForCausalLM if with_head else Qwen3Model)(config)
    _loud(encoder.get_input_embeddings())
    return encoder.eval(), tokenizer


def qwen25_vl(
    width: int, corpus: Iterable[str], template: str
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer]:
    """Return a Qwen2.5-VL and its tokenizer; nothing is asked of its eyes.

    Args:
        width: Of its hidden states.
        corpus: Texts.
        template: Into which the pipeline puts a prompt.
    """
    tokenizer = _tokenizer([*corpus, template])
    half = width // _HEADS // 2  # of a head's width, over which three axes are split
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
        },
        **_ids(tokenizer),
    }
    eyes = {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 2,
        "out_hidden_size": width,
        "fullatt_block_indexes": [0],
    }
    encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=eyes, tie_word_embeddings=True)
    )
    _loud(encoder.get_input_embeddings())
    return encoder.eval(), tokenizer


def _ids(tokenizer: Qwen2Tokenizer) -> dict[str, int | None]:
    return {
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.pad_token_id,
    }


def _tokenizer(texts: Sequence[str]) -> Qwen2Tokenizer:
    """Return a tokenizer over bytes whose merges spell the texts' words."""
    words = text_encoders.frequent(re.findall(r"[^\W\d_]+", " ".join(texts)))
    letters = text_encoders.byte_letters()
    spelt = [[letters[byte] for byte in word.encode()] for word in words]
    merges = text_encoders.merges([*spelt, *([_SPACE, *pieces] for pieces in spelt)])
    pieces = [*letters, *dict.fromkeys(left + right for left, right in merges), *_SPECIAL]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=list(merges),
        extra_special_tokens=list(_SPECIAL[1:]),
        model_max_length=2048,
    )
    tokenizer.chat_template = _CHAT
    return tokenizer


def _loud(embeddings: nn.Module) -> None:
    """Give words embeddings of size 1: at an untrained 0.02 a network would hardly use them."""
    assert isinstance(embeddings.weight, torch.Tensor)
    nn.init.normal_(embeddings.weight, std=1.0)
