"""The criteria tree, whose leaves are attribute pairs: its schema, and how it is read.

A file of ``params/criteria/`` holds one domain::

    domain: painting
    version: "1"
    literature: {arnheim: "Arnheim, Art and Visual Perception, 1974"}
    vocabulary: {medium: [oil, ink], genre: [portrait, landscape]}   ← may be left out
    criteria:
      composition:
        name: Composition
        about: How the surface is divided and held together.
        branches:
          balance:
            positive: balanced masses        ← what stands in a prompt
            negative: lopsided masses
            positive_means: The visual weights rest around the middle.
            negative_means: One side is heavy and nothing answers it.
            applies: any                     ← or words of the vocabulary
            sources: [arnheim]
            measure: {name: mass_offset, positive_at: 0.10, negative_at: 0.16}

A criterion is known by its path, ``composition/balance``; a renamed one lists its
former paths under ``aliases``, so that old judgements stay valid.

The vocabulary sorts the words of ``applies`` into facets. Words of one facet are
alternatives, and every facet that is named has to match: ``[oil, portrait, landscape]``
is judged in portraits and landscapes in oil.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from atelier import reading
from atelier.config.fields import Params, Real
from atelier.config.messages import explain
from atelier.errors import AnnotationError, CriteriaError

Pole = Literal["positive", "negative"]


def _printable(text: str) -> str:
    if reading.CONTROL.search(text) or text != text.strip():
        raise ValueError(
            "should be words without control characters, and without blanks around them, "
            f"got {text!r}"
        )
    return text


Phrase = Annotated[str, Field(min_length=2, max_length=60), AfterValidator(_printable)]

_KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Measure(Params):
    """Thresholds that turn a number from the pixels into a pole; in between, no pole.

    The order tells the direction: with ``positive_at < negative_at`` low is good.
    """

    name: str
    """Name of a measure in `atelier/annotators/measured/`; docs/measures.md lists them."""
    positive_at: Real
    """Value from which on the picture is at the good pole. [unit of the measure]"""
    negative_at: Real
    """Value from which on the picture is at the bad pole; between both thresholds, neither.
    [unit of the measure]"""

    def pole(self, value: float) -> Pole | None:
        """Return the pole of ``value``, or None between the two thresholds."""
        sign = 1 if self.positive_at > self.negative_at else -1
        if sign * value >= sign * self.positive_at:
            return "positive"
        if sign * value <= sign * self.negative_at:
            return "negative"
        return None


class Criterion(Params):
    """A leaf: one attribute pair."""

    positive: Phrase
    """Words of the good pole, as they stand in a prompt."""
    negative: Phrase
    """Words of the bad pole, as they stand in a prompt."""
    positive_means: str
    """One sentence for the judge: when a picture is at the good pole."""
    negative_means: str
    """One sentence for the judge: when a picture is at the bad pole."""
    applies: Literal["any"] | Annotated[list[str], Field(min_length=1)]
    """Words of the vocabulary that a picture must have to be judged, or any."""
    sources: list[str]
    """Keys of the file's literature."""
    aliases: list[str] = Field(default_factory=list)
    """Former paths of the criterion, whose judgements stay valid."""
    measure: Measure | None = None
    """Measure of pixels that judges it; null: a model or people do."""

    def phrase(self, pole: Pole) -> str:
        """Return the words of ``pole``, as they stand in a prompt."""
        return self.positive if pole == "positive" else self.negative


class Branch(Params):
    """An inner node: what its criteria have in common."""

    name: str
    """Title of the branch."""
    about: str
    """One sentence: what its criteria have in common."""
    branches: "Annotated[dict[str, Branch | Criterion], Field(min_length=1)]"
    """Criteria and branches below it, by key."""


class Tree(Params):
    """One domain's criteria. Iterate with ``leaves``; look up with ``criterion``."""

    domain: Annotated[str, AfterValidator(_printable)]
    """What the pictures are, as painting or photography."""
    version: Annotated[str, AfterValidator(_printable)]
    """Version of the file, which reports name."""
    literature: dict[str, str]
    """Books that the criteria cite, by key."""
    vocabulary: dict[str, list[str]] = Field(default_factory=dict)
    """Facets of pictures and their words, of which `applies` speaks; may be left out."""
    criteria: Annotated[dict[str, Branch | Criterion], Field(min_length=1)]
    """The roots of the tree, by key: the dimensions that are reported."""

    def leaves(self) -> dict[str, Criterion]:
        """Return every criterion by its path, in the order of the file."""
        return dict(self._by_path)

    @cached_property
    def _by_path(self) -> dict[str, Criterion]:
        return {
            path: node for path, node in _walk(self.criteria) if isinstance(node, Criterion)
        }

    @property
    def identity(self) -> str:
        """Domain, version and hash of all that is said here; two trees alike have one."""
        content = json.dumps(self.model_dump()).encode()
        return f"{self.domain} {self.version} {hashlib.sha256(content).hexdigest()[:16]}"

    def criterion(self, path: str) -> Criterion:
        """Return the criterion of that path, or the one that was called so formerly.

        Raises:
            AnnotationError: The tree has no such criterion.
        """
        leaves = self.leaves()
        if path in leaves:
            return leaves[path]
        for leaf in leaves.values():
            if path in leaf.aliases:
                return leaf
        raise AnnotationError(
            f"{path!r} is no criterion of {self.domain} {self.version}, which has: "
            f"{', '.join(leaves)}"
        )

    def applicable(self, words: Collection[str]) -> dict[str, Criterion]:
        """Return the criteria that are judged in an image of these ``words``, by path."""
        facets = [set(facet) for facet in self.vocabulary.values()]
        return {
            path: leaf
            for path, leaf in self.leaves().items()
            if leaf.applies == "any" or _matches(set(leaf.applies), set(words), facets)
        }

    def conceivable(self, caption: str) -> dict[str, Criterion]:
        """Return the criteria that ``caption`` does not rule out, by path.

        A facet of which the caption says no word rules nothing out.
        """
        if not self.vocabulary:
            return self.leaves()
        said = f" {_folded(caption)} "
        words: set[str] = set()
        for facet in self.vocabulary.values():
            words |= {word for word in facet if f" {_folded(word)} " in said} or set(facet)
        return self.applicable(words)

    def roots(self) -> list[str]:
        """Return the first-level paths: the dimensions that are reported."""
        return list(self.criteria)

    def depth(self) -> int:
        """Return the number of levels below the domain."""
        return max(path.count("/") + 1 for path in self.leaves())


def parse(path: Path) -> Tree:
    """Read a criteria file.

    Raises:
        CriteriaError: It is absent or contradicts itself; every mistake with its path.
    """
    try:
        values = reading.yaml_values(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CriteriaError(
            f"{path} is absent; `annotate.criteria` names a file of params/criteria/, and "
            "`dvc repro annotate` keeps the copy that later stages read"
        ) from None
    except IsADirectoryError:
        raise CriteriaError(f"{path} is a folder; name a file in it") from None
    except OSError as error:
        raise CriteriaError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CriteriaError(f"{path} is not YAML: {error}") from None
    except reading.UnreadableError as error:
        raise CriteriaError(f"{path} is {error}") from None
    return of(values, str(path))


def of(values: Any, name: str) -> Tree:
    """Return the tree that a criteria file's content describes.

    Args:
        values: The content.
        name: Of the file, for messages.

    Raises:
        CriteriaError: It contradicts itself; every mistake with its path.
    """
    mistakes = list(_mistakes(values))
    if mistakes:
        raise CriteriaError(f"{name} does not fit:\n" + "\n".join(f"  {m}" for m in mistakes))
    return Tree.model_validate(values)


def _walk(nodes: dict[str, Branch | Criterion], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, node in nodes.items():
        path = f"{above}{key}"
        yield path, node
        if isinstance(node, Branch):
            yield from _walk(node.branches, f"{path}/")


def _matches(applies: set[str], words: set[str], facets: list[set[str]]) -> bool:
    """Say whether each facet that ``applies`` names shares a word with ``words``."""
    named = [applies & facet for facet in facets if applies & facet] or [applies]
    return all(alternatives & words for alternatives in named)


_SPELLINGS = {"color": "colour", "gray": "grey", "watercolor": "watercolour"}


def _folded(text: str) -> str:
    """Words in lower case without plural, in one spelling, parted by single spaces."""
    words = re.findall(r"[^\W_]+", text.lower())
    single = (word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words)
    return " ".join(_SPELLINGS.get(word, word) for word in single)


_LEAF = {"positive", "negative", "positive_means", "negative_means", "measure"}


def _mistakes(values: Any) -> Iterator[str]:
    """All mistakes at once, by path; pydantic's union of branch and leaf would bury them."""
    if not isinstance(values, dict) or not isinstance(values.get("criteria"), dict):
        yield "the file should hold domain, version, literature and criteria"
        return
    nodes = values["criteria"]
    yield from _node_mistakes(nodes, "")
    header: Tree | None = None
    try:
        header = Tree.model_validate({**values, "criteria": nodes and {"x": _EXAMPLE}})
    except ValidationError as error:
        yield from (line.strip() for line in explain(error).splitlines())
    yield from _meaning_mistakes(dict(_sound_leaves(nodes, "")), header)


def _node_mistakes(nodes: dict[Any, Any], above: str) -> Iterator[str]:
    for key, node in nodes.items():
        path = f"{above}{key}"
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            yield f"{path}: a name is lower-case words joined by hyphens"
        if not isinstance(node, dict):
            yield f"{path}: should be a branch or a criterion, is {reading.short(node)}"
        elif "branches" in node:
            model, extra = Branch, _LEAF & node.keys()
            if extra:
                yield f"{path}: a branch has no {sorted(extra)}; a criterion has no 'branches'"
            yield from _field_mistakes(path, model, {**node, "branches": {"x": _EXAMPLE}})
            if isinstance(node["branches"], dict) and node["branches"]:
                yield from _node_mistakes(node["branches"], f"{path}/")
            else:
                yield f"{path}: branches should hold at least one node"
        else:
            poles = [pole for pole in ("positive", "negative") if pole in node]
            if len(poles) < 2:
                yield f"{path}: a leaf needs both 'positive' and 'negative', has {poles}"
            else:
                yield from _field_mistakes(path, Criterion, node)


_EXAMPLE = {
    "positive": "xx",
    "negative": "yy",
    "positive_means": "",
    "negative_means": "",
    "applies": "any",
    "sources": [],
}


def _field_mistakes(
    path: str, model: type[Branch] | type[Criterion], values: dict[Any, Any]
) -> Iterator[str]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        for line in explain(error).splitlines():
            yield f"{path}: {line.strip()}"


def _sound_leaves(nodes: dict[Any, Any], above: str) -> Iterator[tuple[str, Criterion]]:
    """Yield the leaves that fit on their own, wherever their surroundings do not."""
    for key, node in nodes.items():
        below = node.get("branches") if isinstance(node, dict) else None
        if isinstance(below, dict):
            yield from _sound_leaves(below, f"{above}{key}/")
        with contextlib.suppress(ValidationError):
            yield f"{above}{key}", Criterion.model_validate(node)


def _meaning_mistakes(leaves: Mapping[str, Criterion], header: Tree | None) -> Iterator[str]:
    phrases: dict[str, str] = {}
    former: dict[str, str] = {}
    for path, leaf in leaves.items():
        for pole, phrase in (("positive", leaf.positive), ("negative", leaf.negative)):
            key = " ".join(phrase.lower().split())
            if key in phrases:
                yield f"{path}: {pole} {phrase!r} is already said by {phrases[key]}"
            phrases[key] = path
        if header:
            yield from (f"{path}: {mistake}" for mistake in _unknown_words(leaf, header))
        for alias in leaf.aliases:
            if alias in leaves or alias in former:
                yield f"{path}: alias {alias!r} is also {former.get(alias, 'a criterion')}"
            former[alias] = path
        if leaf.measure and leaf.measure.positive_at == leaf.measure.negative_at:
            yield f"{path}: measure needs two different thresholds"


def _unknown_words(leaf: Criterion, header: Tree) -> Iterator[str]:
    for source in leaf.sources:
        if source not in header.literature:
            yield f"source {source!r} is not in the file's literature"
    known = {word for facet in header.vocabulary.values() for word in facet}
    if known and leaf.applies != "any":
        for word in leaf.applies:
            if word not in known:
                yield f"applies to {word!r}, which is not in the file's vocabulary"
