"""Prompt chunks for CLIP: 75 tokens each, cut between whole phrases.

Each chunk stands between a begin and an end token of its own and is read alone; 75 + 2 is what
CLIP was trained on.
"""

import itertools
from typing import Any

import torch
from torch import Tensor

_READ = 77
_WORDS = _READ - 2  # without begin and end
_COMMA = ",</w>"


def budget(count: int) -> int:
    """Return how many tokens ``count`` chunks hold, one begin and one end token included."""
    return count * _WORDS + 2


def count(tokenizer: Any, prompt: str) -> int:
    """Return how much of ``budget`` a prompt needs, what its cuts leave empty included."""
    *full, last = _parts(tokenizer, prompt)
    return len(full) * _WORDS + len(last) + 2


def tokens(tokenizer: Any, prompt: str, count: int) -> Tensor:
    """Return a prompt's tokens in ``count`` chunks, long ``[count, 77]``.

    Chunks that the prompt does not fill are empty. Of a prompt beyond them the last chunk
    takes what it can hold, as tokenizers cut.
    """
    parts: list[list[int]] = [*_parts(tokenizer, prompt), *([] for _ in range(count))]
    if rest := list(itertools.chain(*parts[count:])):
        parts[count - 1] = [*parts[count - 1], *rest][:_WORDS]
    begin, end, pad = (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    rows = [[begin, *part, end] for part in parts[:count]]
    return torch.tensor([row + [pad] * (_READ - len(row)) for row in rows])


def _parts(tokenizer: Any, prompt: str) -> list[list[int]]:
    """Tokens of each chunk; at least one. A phrase ends with its comma and is kept whole."""
    comma = tokenizer.convert_tokens_to_ids(_COMMA)
    words = tokenizer(
        prompt, add_special_tokens=False, truncation=False, verbose=False
    ).input_ids
    parts: list[list[int]] = [[]]
    for phrase in _phrases(words, comma):
        if len(parts[-1]) + len(phrase) > _WORDS and parts[-1]:
            parts.append([])
        parts[-1] += phrase
        while len(parts[-1]) > _WORDS:  # a phrase longer than a chunk is cut where it ends
            parts.append(parts[-1][_WORDS:])
            del parts[-2][_WORDS:]
    return parts


def _phrases(words: list[int], comma: int) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for word in words:
        found[-1].append(word)
        if word == comma:
            found.append([])
    return [phrase for phrase in found if phrase]
