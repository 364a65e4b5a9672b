"""Bounded reading of untrusted YAML and JSON: size, depth, aliases, duplicate keys.

Python's own readers raise many kinds of errors, or run out of memory: on a page of aliases that
expands to gigabytes, ten thousand brackets, a number of five thousand digits, or a lone
surrogate. Here each of these is one error with one sentence.
"""

import json
import re
import reprlib
from collections.abc import Callable
from typing import Any

import yaml

_DEEPEST = 40  # levels of a YAML file; our own have nine
_MOST_NODES = 200_000  # of a YAML file, what its aliases stand for included
_SHOWN = 200  # characters of a value that a message repeats
_LONGEST_TEXT = 4_000  # characters of a text in a message
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map", "merge")  # YAML 1.1's tags
_TAG = "tag:yaml.org,2002:"
_NOT_PLAIN = (f"{_TAG}timestamp", f"{_TAG}value")  # dates, and a bare "="


# What moves a terminal's cursor, ends a text in C, or has no place in XML.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class UnreadableError(Exception):
    """A text that is not what it should be; its own text says why, in one sentence."""


def yaml_values(text: str) -> Any:
    """Return what a YAML file says: texts, numbers, yes and no, lists and mappings.

    Dates are texts. Names that stand twice in a mapping are refused, for one would be lost.

    Raises:
        UnreadableError: It is no such file, or a small one that stands for a huge one.
    """
    try:
        return yaml.load(text, Loader=_Bounded)  # noqa: S506 - a SafeLoader with bounds
    except yaml.YAMLError as error:
        raise UnreadableError(f"not YAML: {error}") from None


def json_values(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return what a JSON text says.

    Args:
        text: The text.
        pairs: Makes an object of its names and values; None makes a dict.

    Raises:
        UnreadableError: It is no JSON, or holds what no file of UTF-8 can.
    """
    try:
        values = json.loads(text, object_pairs_hook=pairs, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else (
            f"column {error.colno}"
        )  # fmt: skip
        raise UnreadableError(f"not JSON, {error.msg} at {where}") from None
    except ValueError as error:  # a number of thousands of digits
        raise UnreadableError(f"not JSON that can be read: {error}") from None
    except RecursionError:
        raise UnreadableError("not JSON that can be read: nested too deeply") from None
    if "\\u" in text and not writable(json.dumps(values, ensure_ascii=False)):
        raise UnreadableError("not JSON that can be kept: it holds half of a character")
    return values


def writable(text: str) -> bool:
    """Say whether ``text`` has characters only; half of one (a lone surrogate) is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short(value: object) -> str:
    """Return ``value`` as Python writes it, but never more than a line or two."""
    return _SHORT.repr(value)


def clipped(text: str) -> str:
    """Return ``text`` with long words and a long rest cut out, for an error message."""
    words = re.sub(r"\S{200,}", lambda word: f"{word[0][:80]}…{word[0][-20:]}", text)
    return words if len(words) <= _LONGEST_TEXT else f"{words[:_LONGEST_TEXT]}…"


class _Bounded(yaml.SafeLoader):
    """PyYAML's SafeLoader that counts what it makes, and knows plain values only."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # nodes by node, what aliases stand for included

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        alias = self.check_event(yaml.AliasEvent)
        before = self._nodes
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not alias:
            self._nodes += 1
            self._sizes[id(node)] = self._nodes - before
        elif id(node) in self._sizes:
            self._nodes += self._sizes[id(node)]
        else:
            raise yaml.composer.ComposerError(None, None, "it stands for itself", mark)
        if self._nodes > _MOST_NODES:
            raise yaml.composer.ComposerError(
                None, None, f"it stands for more than {_MOST_NODES} values", mark
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            kind = node.tag.removeprefix(_TAG)
            raise yaml.constructor.ConstructorError(
                None, None, f"{short(node.value)} is no {kind}", node.start_mark
            ) from None
        if isinstance(value, str) and not writable(value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{short(value)} holds half of a character", node.start_mark
            )
        return value


def _mapping(loader: _Bounded, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a name should be plain words", key.start_mark
            )
        name = key.value if key.tag == f"{_TAG}merge" else loader.construct_object(key)
        if name in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"{short(key.value)} stands twice", key.start_mark
            )
        seen.add(name)
    return loader.construct_mapping(node, deep=True)


_Bounded.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in _PLAIN
}
_Bounded.yaml_implicit_resolvers = {
    letter: [(tag, words) for tag, words in known if tag not in _NOT_PLAIN]
    for letter, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Bounded.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _SHOWN
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxtuple = 8
_SHORT.maxlevel = 3


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
