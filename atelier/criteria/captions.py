"""Prompts for training: caption and attributes as one text, within the encoder's limit.

``y ∪ A`` is written by commas: ``a landscape in blue, harmonious palette, blurred edges``.
The words of a bad pole are stated as present, like those of a good one, and never negated: θ1
must learn what clashing hues look like, so that training can move away from them.

A_pos stands before A_neg, each in the order given. The template is ours: the paper (Meng et
al., arXiv:2601.04300) states the concatenation only.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from atelier.criteria.tree import Pole, Tree


@dataclass(frozen=True)
class Fitted:
    """A prompt within the budget, and what it cost.

    Attributes:
        prompt: The text.
        dropped: Phrases that did not fit, in their order.
        cut: Whether the caption itself lost words.
    """

    prompt: str
    dropped: tuple[str, ...]
    cut: bool


def labelled(positive: Iterable[str], negative: Iterable[str], tree: Tree) -> list[str]:
    """Return the phrases of ``A_pos ∪ A_neg``, with which θ1 is trained.

    Raises:
        AnnotationError: A path is no criterion of the tree.
    """
    return [*_words(positive, "positive", tree), *_words(negative, "negative", tree)]


def winner(positive: Iterable[str], tree: Tree) -> list[str]:
    """Return the phrases of ``A_pos``, with which θ1 gives the winning target."""
    return labelled(positive, (), tree)


def loser(negative: Iterable[str], tree: Tree) -> list[str]:
    """Return the phrases of ``A_neg``, with which θ1 gives the losing target."""
    return labelled((), negative, tree)


def flipped_winner(positive: Iterable[str], negative: Iterable[str], tree: Tree) -> list[str]:
    """Return every active pair at its good pole: A_pos and the twins of A_neg.

    An option of ours, not the paper's; it uses the pair structure of the criteria.
    """
    return winner([*positive, *negative], tree)


def join(caption: str, attributes: Sequence[str]) -> str:
    """Return caption and attributes with commas between; an empty caption leaves no comma."""
    return ", ".join(filter(None, [caption, *attributes]))


def fit(
    caption: str,
    attributes: Sequence[str],
    budget: int,
    count_tokens: Callable[[str], int],
    seed: int,
) -> Fitted:
    """Return as much of a prompt as the encoders read: phrases are kept whole or dropped.

    Where not all fit, they are tried in an order drawn from ``seed``, and each that still
    fits is kept, so that every phrase is seen over the epochs. A caption that is too long
    alone is cut between words, and keeps no phrase.

    Args:
        caption: ``y``.
        attributes: Phrases, as ``labelled`` and its like give them.
        budget: Tokens that the narrowest encoder reads.
        count_tokens: What a text costs of it; must not fall when words are added.
        seed: Draws the order; give each image and epoch its own.
    """
    whole = join(caption, attributes)
    if count_tokens(whole) <= budget:
        return Fitted(whole, (), cut=False)
    if count_tokens(caption) > budget:
        return Fitted(_cut(caption, budget, count_tokens), tuple(attributes), cut=True)
    kept: set[int] = set()
    for index in random.Random(seed).sample(range(len(attributes)), len(attributes)):
        if count_tokens(join(caption, _only(attributes, kept | {index}))) <= budget:
            kept.add(index)
    dropped = _only(attributes, set(range(len(attributes))) - kept)
    return Fitted(join(caption, _only(attributes, kept)), tuple(dropped), cut=False)


def _words(paths: Iterable[str], pole: Pole, tree: Tree) -> list[str]:
    return [tree.criterion(path).phrase(pole) for path in paths]


def _only(attributes: Sequence[str], indices: set[int]) -> list[str]:
    return [attributes[index] for index in sorted(indices)]


def _cut(caption: str, budget: int, count_tokens: Callable[[str], int]) -> str:
    """The longest beginning of ``caption``, in whole words, that fits; by bisection."""
    words = caption.split()
    fits, too_long = 0, len(words)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if count_tokens(" ".join(words[:middle])) <= budget:
            fits = middle
        else:
            too_long = middle
    return " ".join(words[:fits])
