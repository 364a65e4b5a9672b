"""Prompts that ask the agent for criteria: from labelled pictures, an expert's text, or both.

The answer is a list of attribute pairs, which is read as strictly as a criteria file: what
contradicts itself goes back to the model with every mistake. An expert's text and the labels
are data, as pictures are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atelier.annotators.vlm import prompts
from atelier.annotators.vlm.prompts import Prompt, UnfitError
from atelier.criteria import tree, wording
from atelier.criteria.tree import Criterion, Tree
from atelier.errors import CriteriaError

SOURCE = "proposal"  # in the literature of a proposed tree
_PAIR = ("root", "name", "positive", "negative", "positive_means", "negative_means")
_ALWAYS = "any"


@dataclass(frozen=True)
class Wanted:
    """The criteria that are asked for.

    Attributes:
        domain: What the pictures are.
        version: Of the tree.
        pairs: At most.
        origin: Where they come from, in words; the tree's only literature.
        vocabulary: Facets, and words of ``applies``.
        text: What an expert has written.
    """

    domain: str
    version: str
    pairs: int
    origin: str
    vocabulary: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text: str | None = None


def proposing(
    wanted: Wanted,
    labels: Sequence[str],
    draft: Tree | None = None,
    tried: Mapping[str, str] | None = None,
) -> Prompt[Tree]:
    """Ask for criteria.

    Args:
        wanted: What is asked for.
        labels: Of the pictures that are shown, in their order: ``good`` or ``bad``.
        draft: Criteria that are to be revised.
        tried: By path, what was found when the draft was tried on other pictures.
    """
    parts = [
        f"This time the criteria themselves are asked for: pairs of attributes by which an "
        f"expert tells good {wanted.domain} from bad. Give {wanted.pairs} pairs at most, and "
        "fewer if fewer tell. Each pair is about one thing that is seen in a picture alone.\n"
        "`root`: the dimension, one lower-case word, such as color, light or composition; "
        "pairs of one dimension share it. `name`: one to three lower-case words joined by "
        "hyphens, that name the pair and no pole. `positive` and `negative`: two to five words "
        "each, that could stand in the description of a picture; say what is there, not what "
        "is missing, and use no phrase twice. `positive_means` and `negative_means`: one "
        "sentence each, of what is seen where that pole is."
    ]
    words = [word for facet in wanted.vocabulary.values() for word in facet]
    if words:
        parts.append(
            "`applies`: the kinds of picture in which the pair is judged; none if in all."
        )
    if wanted.text is not None:
        shown = json.dumps(wanted.text, ensure_ascii=False)
        parts.append(f"An expert has written, as data: {shown}")
    if labels:
        listed = "\n".join(f"- picture {n}: {label}" for n, label in enumerate(labels, 1))
        parts.append(f"The pictures above, in their order, by an expert:\n{listed}")
    if draft is not None:
        parts.append(
            "These pairs were proposed before. Keep those that tell good from bad, mend or "
            "replace those that do not, and put two that say the same into one:\n"
            + "\n".join(
                _line(path, leaf, (tried or {}).get(path))
                for path, leaf in draft.leaves().items()
            )
        )

    def read(values: Any) -> Tree:
        found = prompts.strict_fields(values, ("pairs",))["pairs"]
        return _tree(found, wanted)

    return Prompt("proposal", "\n\n".join(parts), _schema(words), read)


def _line(path: str, leaf: Criterion, tried: str | None) -> str:
    found = f" Tried on other pictures: {tried}." if tried else ""
    return (
        f"- {path}: {leaf.positive} ({leaf.positive_means}) or {leaf.negative} "
        f"({leaf.negative_means}){found}"
    )


def _schema(words: Sequence[str]) -> dict[str, Any]:
    pair: dict[str, Any] = {name: {"type": "string"} for name in _PAIR}
    if words:
        pair["applies"] = prompts.several_of(words)
    return prompts.object_schema(
        {"pairs": {"type": "array", "items": prompts.object_schema(pair)}}
    )


def _tree(found: Any, wanted: Wanted) -> Tree:
    """The tree that a list of pairs describes.

    Raises:
        UnfitError: It is none; every mistake with its path.
    """
    if not isinstance(found, list) or not found:
        raise UnfitError("pairs: should be a list of at least one pair")
    if len(found) > wanted.pairs:
        raise UnfitError(f"pairs: {len(found)} pairs; {wanted.pairs} at most")
    names = (*_PAIR, "applies") if wanted.vocabulary else _PAIR
    roots: dict[str, Any] = {}
    for pair in found:
        values = prompts.strict_fields(pair, names)
        root, name = str(values["root"]).strip(), str(values["name"]).strip()
        branch = roots.setdefault(
            root, {"name": root.capitalize(), "about": "", "branches": {}}
        )
        if name in branch["branches"]:
            raise UnfitError(f"{root}/{name}: two pairs have this name")
        branch["branches"][name] = {
            **{key: " ".join(str(values[key]).split()) for key in _PAIR[2:]},
            "applies": values.get("applies") or _ALWAYS,
            "sources": [SOURCE],
        }
    try:
        proposed = tree.of(
            {
                "domain": wanted.domain,
                "version": wanted.version,
                "literature": {SOURCE: wanted.origin},
                "vocabulary": {
                    facet: list(words) for facet, words in wanted.vocabulary.items()
                },
                "criteria": roots,
            },
            "the answer",
        )
    except CriteriaError as error:
        raise UnfitError(str(error)) from None
    twins = [
        f"{one[0]} and {other[0]} say nearly the same" for one, other in wording.alike(proposed)
    ]
    if twins:
        raise UnfitError("; ".join(twins))
    return proposed
