"""A small FLUX pipeline from nothing: diffusers' real classes with few parameters.

For the starter base and for tests: everything that reads it reads FLUX.1 the same way.
"""

import re
from collections import Counter
from collections.abc import Iterable

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    ModelMixin,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from atelier.params import FluxNetwork

_MOST_WORDS = 4000
# Sampling spends more of its steps near pure noise: at these sizes the large decisions
# (layout, palette) fall there. 1 would be uniform.
_SCHEDULER_SHIFT = 2.0


def pipeline(
    network: FluxNetwork, codec: ModelMixin, corpus: Iterable[str], *, seed: int
) -> FluxPipeline:
    """Build a pipeline with random, seeded weights.

    Args:
        network: Its size.
        codec: The ``vae``, already fitted.
        corpus: Texts whose words become tokens of T5; other words are spelt.
        seed: Of all weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip, clip_tokenizer = _clip(network.pooled_width)
        t5, t5_tokenizer = _t5(network.text_width, corpus)
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * codec.config.latent_channels,
            num_layers=network.double_blocks,
            num_single_layers=network.single_blocks,
            attention_head_dim=network.head_width,
            num_attention_heads=network.heads,
            joint_attention_dim=network.text_width,
            pooled_projection_dim=network.pooled_width,
            guidance_embeds=False,
            axes_dims_rope=_rotary_axes(network.head_width),
        )
        nn.init.zeros_(transformer.proj_out.weight)  # start from the velocity 0, not from noise
        nn.init.zeros_(transformer.proj_out.bias)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=_SCHEDULER_SHIFT),
        vae=codec,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer.eval(),
    )


def _rotary_axes(head_width: int) -> tuple[int, int, int]:
    """Split a head's width over text, row and column: about a quarter and two equal rests."""
    text = head_width // 4 // 2 * 2
    side = (head_width - text) // 2
    if side % 2:
        text, side = text + 2, side - 1
    return text, side, side


def _clip(width: int) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """A CLIP text encoder over bytes: every text can be written, nothing is unknown."""
    letters = _byte_letters()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval(), tokenizer


def _byte_letters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, which byte-level BPE expects."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    code = {byte: byte for byte in printable} | {b: 256 + n for n, b in enumerate(others)}
    return [chr(code[byte]) for byte in range(256)]


def _t5(width: int, corpus: Iterable[str]) -> tuple[T5EncoderModel, T5Tokenizer]:
    """A T5 encoder whose tokens are the corpus's words; others are spelt letter by letter."""
    counts = Counter(
        word for text in corpus for word in re.findall(r"\w+|[^\w\s]", text.lower())
    )
    words = sorted(word for word, _ in sorted(counts.items(), key=_by_count)[:_MOST_WORDS])
    letters = sorted({chr(n) for n in range(32, 127)} | {c for word in words for c in word})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -1.0) for word in words if word.isalnum()]
    known = {piece for piece, _ in pieces}
    pieces += [(letter, -6.0) for letter in letters if letter.strip() and letter not in known]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 2,
        d_ff=2 * width,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    encoder = T5EncoderModel(config).eval()
    # An untrained encoder should mix its words a little, not drown them.
    for block in encoder.encoder.block:
        block.layer[0].SelfAttention.o.weight.data.mul_(0.3)
        block.layer[1].DenseReluDense.wo.weight.data.mul_(0.3)
    return encoder, tokenizer


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    word, count = entry
    return -count, word
