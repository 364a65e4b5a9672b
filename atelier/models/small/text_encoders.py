"""Small text encoders with random weights: transformers' real CLIP and T5.

Their embeddings of a prompt are random but fixed; the network that is trained with them learns
to read these.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

_MOST_WORDS = 4000
_MOST_MERGED_WORDS = 1500  # CLIP's merges are found in a time that grows with their square


def clip_of_bytes(width: int) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """Return a CLIP text encoder over bytes: every text can be written, nothing is unknown."""
    tokenizer = _clip_tokenizer([])
    config = _clip_config(tokenizer, width, projection=width, layers=1)
    return CLIPTextModel(config).eval(), tokenizer


def clip_pair(
    widths: Sequence[int], pooled_width: int, corpus: Iterable[str], *, both_summarise: bool
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer]:
    """Return two encoders and the tokenizer of both: the corpus's words are tokens.

    Two layers each, since SDXL and SD3 read the last hidden state but one.

    Args:
        widths: Of both.
        pooled_width: Of a summary.
        corpus: Texts.
        both_summarise: Whether the first has a summary too, as SD3's has, and SDXL's not.
    """
    words = frequent(re.findall(r"[^\W\d_]+", " ".join(corpus).lower()))
    letters = byte_letters()
    spelt = [[letters[byte] for byte in word.encode()] for word in words]
    for pieces in spelt:
        pieces[-1] += "</w>"
    tokenizer = _clip_tokenizer(merges(spelt))
    first, second = (
        _clip_config(tokenizer, width, projection=pooled_width, layers=2) for width in widths
    )
    kind = CLIPTextModelWithProjection if both_summarise else CLIPTextModel
    encoders = kind(first), CLIPTextModelWithProjection(second)
    for encoder in encoders:
        # Hidden states leave without a normalisation: at CLIP's own initial size, 0.02, a
        # network that is trained from nothing would hardly use them.
        embeddings = getattr(encoder, "text_model", encoder).embeddings
        nn.init.normal_(embeddings.token_embedding.weight, std=1.0)
        nn.init.normal_(embeddings.position_embedding.weight, std=0.3)
    return encoders[0].eval(), encoders[1].eval(), tokenizer


def _clip_tokenizer(joined: Sequence[tuple[str, str]]) -> CLIPTokenizer:
    letters = byte_letters()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    pieces += dict.fromkeys(left + right for left, right in joined)
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=list(joined), model_max_length=77)


def _clip_config(
    tokenizer: CLIPTokenizer, width: int, *, projection: int, layers: int
) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def merges(spelt: list[list[str]]) -> list[tuple[str, str]]:
    """Return byte-pair encoding to its end: merges until each spelt word is one piece.

    The trainer of ``tokenizers`` breaks ties by chance; here the same words give the same
    merges, and so a base the same bytes.
    """
    found: dict[tuple[str, str], None] = {}
    while spelt := [pieces for pieces in spelt if len(pieces) > 1]:
        counts = Counter(pair for pieces in spelt for pair in pairwise(pieces))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        found[best] = None
        spelt = [_merged(pieces, best) for pieces in spelt]
    return list(found)


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    for piece in pieces:
        if found and (found[-1], piece) == pair:
            found[-1] += piece
        else:
            found.append(piece)
    return found


def byte_letters() -> list[str]:
    """Return GPT-2's printable stand-ins for the 256 bytes, which byte-level BPE expects."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    code = {byte: byte for byte in printable} | {b: 256 + n for n, b in enumerate(others)}
    return [chr(code[byte]) for byte in range(256)]


def t5(width: int, corpus: Iterable[str]) -> tuple[T5EncoderModel, T5Tokenizer]:
    """Return a T5 encoder whose tokens are the corpus's words, as written; others are spelt."""
    texts = list(corpus)
    written = (word for text in texts for word in re.findall(r"\w+|[^\w\s]", text))
    words = frequent(written, _MOST_WORDS)
    # After a bracket or a hyphen a word has no space before it, and needs a token of its own.
    inner = {word for text in texts for word in re.findall(r"(?<=[^\w\s])\w+", text)}
    letters = sorted({chr(n) for n in range(32, 127)} | {c for word in words for c in word})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -1.0) for word in words if word.isalnum()]
    pieces += [(word, -1.0) for word in words if word in inner and len(word) > 1]
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


def frequent(words: Iterable[str], most: int = _MOST_MERGED_WORDS) -> list[str]:
    """Return the most frequent words, at most so many, in alphabetical order."""
    counts = Counter(words)
    return sorted(word for word, _ in sorted(counts.items(), key=_by_count)[:most])


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    word, count = entry
    return -count, word
