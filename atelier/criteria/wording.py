"""Wording advice for a valid criteria tree: poles that read badly inside a prompt.

Phrases are joined by commas in prompts. A text encoder ignores negation, so a model paints the
thing negated; two phrases that are nearly the same teach nothing.
"""

import itertools
import re
from collections.abc import Iterator
from difflib import SequenceMatcher

from atelier.criteria.tree import Tree

LONGEST_PHRASE = 6  # words
ALIKE_WORDS = 0.5  # Jaccard index of the words, from which two phrases are one
ALIKE_LETTERS = 0.75  # difflib's ratio, from which two phrases are one
_NEGATION = re.compile(r"\b(no|not|non|never|without|lacks?|lacking|n't)\b", re.IGNORECASE)


def objections(tree: Tree) -> Iterator[str]:
    """Yield what should be worded otherwise, each with the path of its criterion."""
    for path, leaf in tree.leaves().items():
        for phrase in (leaf.positive, leaf.negative):
            yield from (f"{path}: {text}" for text in _phrase_objections(phrase))
        for pole, text in (
            ("positive", leaf.positive_means),
            ("negative", leaf.negative_means),
        ):
            if not is_sentence(text):
                yield f"{path}: {pole}_means should be one sentence, is {text!r}"
    for (path, phrase), (other_path, other) in alike(tree):
        yield f"{path}: {phrase!r} is nearly {other!r} of {other_path}"
    cited = {source for leaf in tree.leaves().values() for source in leaf.sources}
    yield from (
        f"literature: nothing rests on {source!r}"
        for source in tree.literature
        if source not in cited
    )


def alike(tree: Tree) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Yield pairs of (path, phrase) from two criteria that say nearly the same."""
    phrases = [
        (path, phrase)
        for path, leaf in tree.leaves().items()
        for phrase in (leaf.positive, leaf.negative)
    ]
    for one, other in itertools.combinations(phrases, 2):
        if one[0] != other[0] and _nearly(one[1].lower(), other[1].lower()):
            yield one, other


def is_sentence(text: str) -> bool:
    """Say whether ``text`` is one sentence that begins and ends like one."""
    return text[:1].isupper() and text.endswith(".") and not re.search(r"[.!?]\s", text)


def _phrase_objections(phrase: str) -> Iterator[str]:
    words = len(phrase.split())
    if words > LONGEST_PHRASE:
        yield f"{phrase!r} has {words} words, a prompt has room for {LONGEST_PHRASE}"
    if "," in phrase:
        yield f"{phrase!r} has a comma, by which prompts are joined"
    if _NEGATION.search(phrase):
        yield f"{phrase!r} negates; name what is seen instead"


def _nearly(one: str, other: str) -> bool:
    ours, theirs = set(one.split()), set(other.split())
    if len(ours & theirs) >= ALIKE_WORDS * len(ours | theirs):
        return True
    letters = SequenceMatcher(None, one, other)
    return letters.quick_ratio() >= ALIKE_LETTERS and letters.ratio() >= ALIKE_LETTERS
