"""JSON schemas of settings: each field with its meaning, unit, type, bounds and default.

A field's meaning is the string below it in the code, which ends with its unit in brackets.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

Schema = dict[str, Any]
# pydantic's names of bounds that stand behind a validator; no setting has such a name.
_BOUND = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
}
_UNIT = re.compile(r"(.*?)(?: \[([^\]]+)\])?")


def of(model: type[BaseModel], title: str) -> Schema:
    """Return the JSON schema of a file that holds ``model``."""
    found = _bounded(model.model_json_schema(schema_generator=_Described))
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": title}


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the meaning of each field that has one, by the field's name."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if issubclass(parent, BaseModel) and parent is not BaseModel:
            found |= _strings(parent.__module__).get(parent.__name__, {})
    return found


def _bounded(node: Any) -> Any:
    """Return a schema whose bounds have JSON schema's names."""
    if isinstance(node, list):
        return [_bounded(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {_BOUND.get(name, name): _bounded(one) for name, one in node.items()}


@cache
def _strings(module: str) -> dict[str, dict[str, str]]:
    """Return the strings below the fields of each class of a module."""
    classes = ast.parse(inspect.getsource(sys.modules[module])).body
    return {
        one.name: {
            field.target.id: " ".join(text.value.value.split())
            for field, text in pairwise(one.body)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for one in classes
        if isinstance(one, ast.ClassDef)
    }


class _Described(GenerateJsonSchema):
    """Writes meanings, and leaves out titles and docstrings of classes."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> Schema:
        found = super().model_schema(schema)
        said = meanings(schema["cls"])
        for name, one in found.get("properties", {}).items():
            if name in said:
                one["description"] = said[name]
        return {
            name: one for name, one in found.items() if name not in {"title", "description"}
        }


@dataclass(frozen=True)
class Setting:
    """One setting of a schema.

    Attributes:
        name: Its dotted name; ``<name>`` stands for a name of the user's choice.
        meaning: What it decides.
        unit: Its unit, ``number`` if it has none; empty if it is no number.
        type: Its type and bounds, in words.
        default: Its default as JSON; None: it has to be given.
    """

    name: str
    meaning: str
    unit: str
    type: str
    default: str | None


class Settings:
    """The settings of a schema, by their dotted names."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def one(self, name: str, values: object = None) -> Setting | None:
        """Return the setting called ``name``; None: there is none.

        Args:
            name: Dotted; empty: the whole file. In place of a name of the user's choice it may
                hold a kind: ``cpo.objectives.dpo.beta``.
            values: Of a file; they tell which kind of section stands there.
        """
        found = self._find(name, values)
        return None if found is None else self._made(name, *found[:2])

    def below(self, name: str, values: object = None) -> dict[str, list[Setting]]:
        """Return the settings of each kind of section that may stand at ``name``.

        Args:
            name: As for ``one``.
            values: As for ``one``.
        """
        found = self._find(name, values)
        if found is None:
            return {}
        options = self._options(found[0], found[2])
        return {_kind(one): self._inside(name, one) for one in options if "properties" in one}

    def _find(self, name: str, values: object) -> tuple[Schema, bool, object] | None:
        """Return a node, whether it has to be given, and the values that stand there."""
        node, given = self._schema, True
        for part in name.split(".") if name else ():
            for option in self._options(node, values):
                if part in option.get("properties", {}):
                    node, given = option["properties"][part], part in option.get("required", ())
                    break
                if (below := _named(option)) is not None:
                    node, given = below, True
                    break
            else:
                return None
            named = isinstance(values, dict) and part in values
            values = values[part] if named and isinstance(values, dict) else {"": part}
        return node, given, values

    def sections(self) -> Iterator[tuple[str, str, list[Setting]]]:
        """Yield name, kind and settings of each section of a schema without circles."""
        yield from self._sections("", self._schema)

    def _sections(self, name: str, node: Schema) -> Iterator[tuple[str, str, list[Setting]]]:
        for option in self._options(node):
            if (below := _named(option)) is not None:
                yield from self._sections(f"{name}.<name>", below)
            if inside := self._inside(name, option):
                yield name, _kind(option), inside
            for one, below in option.get("properties", {}).items():
                yield from self._sections(_joined(name, one), below)

    def _inside(self, name: str, option: Schema) -> list[Setting]:
        given = option.get("required", ())
        return [
            self._made(_joined(name, one), below, one in given)
            for one, below in option.get("properties", {}).items()
        ]

    def _made(self, name: str, node: Schema, given: bool) -> Setting:
        found = _UNIT.fullmatch(node.get("description", ""))
        assert found, "the pattern fits any line"
        default = None if given else json.dumps(node.get("default"))
        return Setting(name, found[1], found[2] or "", self._words(node), default)

    def _options(self, node: Schema, values: object = None) -> list[Schema]:
        """Return what may stand at a node, without null; of the kind of ``values`` alone."""
        if "$ref" in node:
            return self._options(self._schema["$defs"][node["$ref"].rpartition("/")[2]], values)
        several = node.get("anyOf", node.get("oneOf"))
        if several is None:
            return [] if node.get("type") == "null" else [node]
        found = [one for each in several for one in self._options(each, values)]
        said = [one for one in values.values() if one] if isinstance(values, dict) else []
        return [one for one in found if _kind(one) in said] or found

    def _words(self, node: Schema) -> str:
        """Return type and bounds of a node in words."""
        words = [self._word(one) for one in self._options(node)]
        nullable = any(one.get("type") == "null" for one in node.get("anyOf", ()))
        return " or ".join(dict.fromkeys(words + ["null"] * nullable))

    def _word(self, node: Schema) -> str:
        if "const" in node or "enum" in node:
            return " or ".join(f"`{one}`" for one in node.get("enum", [node.get("const")]))
        if "properties" in node:
            return "section"
        kind = node.get("type")
        if kind == "array":
            return f"list, each {self._words(node['items'])}" if "items" in node else "list"
        if kind == "object":
            below = _named(node)
            return "table" if below is None else f"table, each {self._words(below)}"
        plain = {"boolean": "true or false", "string": "text", None: "anything"}
        bounds = [f"{sign} {node[key]}" for key, sign in _BOUNDS.items() if key in node]
        return " ".join([plain.get(kind, str(kind)), ", ".join(bounds)]).strip()


_BOUNDS = {
    "exclusiveMinimum": ">",
    "minimum": "≥",
    "exclusiveMaximum": "<",
    "maximum": "≤",
    "multipleOf": "a multiple of",
}


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _named(option: Schema) -> Schema | None:
    """Return what stands under names of the user's choice; None: nothing may."""
    patterns = list(option.get("patternProperties", {}).values())
    below = [*patterns, option.get("additionalProperties")][0]
    return below if isinstance(below, dict) else None


def _kind(option: Schema) -> str:
    """Return the word that tells a section from others in its place; empty: there is none."""
    consts = (one["const"] for one in option.get("properties", {}).values() if "const" in one)
    return str(next(consts, ""))
