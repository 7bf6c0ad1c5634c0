"""JSON schemas of shapes: definitions of classes, and references to them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from .nodes import Schema, with_words
from .spelling import plain_name, unused_name

__all__ = ["Definitions", "completed", "parts_of", "referenced", "rewritten"]

_PREFIX = "#/$defs/"


class Definitions:
    """The definitions of classes in one schema, by name.

    Attributes:
        found: the schemas.
    """

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {}
        self._names: dict[Hashable, str] = {}

    def reference(self, key: Hashable, name: str, write: Callable[[], Schema]) -> Schema:
        """Return a reference to a definition, which `write` returns when `key` comes for the first time."""
        if key not in self._names:
            unique = self._names[key] = unused_name(plain_name(name), self.found)
            self.found[unique] = {}  # so that no other class takes the name
            self.found[unique] = write()
        return {"$ref": _PREFIX + self._names[key]}


def referenced(schema: Mapping[str, Any]) -> str | None:
    """Return the name of the definition that a schema refers to, or None."""
    reference = schema.get("$ref")
    return reference.removeprefix(_PREFIX) if isinstance(reference, str) else None


_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs")
_SINGLES = ("items", "additionalProperties", "propertyNames", "not", "contains")


def parts_of(schema: Mapping[str, Any]) -> Iterator[Schema]:
    """Yield the schemas directly within a schema."""
    for word in _LISTS:
        yield from schema.get(word, ())
    for word in _MAPS:
        yield from schema.get(word, {}).values()
    yield from (part for word in _SINGLES if isinstance(part := schema.get(word), dict))


def rewritten(schema: Mapping[str, Any], change: Callable[[Schema], Schema]) -> Schema:
    """Return a copy in which `change` replaces each direct subschema."""
    copy = dict(schema)
    for word in _LISTS:
        if word in copy:
            copy[word] = [change(part) for part in copy[word]]
    for word in _MAPS:
        if word in copy:
            copy[word] = {name: change(part) for name, part in copy[word].items()}
    for word in _SINGLES:
        if isinstance(copy.get(word), dict):
            copy[word] = change(copy[word])
    return copy


def completed(root: Schema, found: Mapping[str, Schema]) -> Schema:
    """Return a schema with all definitions that it needs.

    A definition that is used once is written where it is used. The root is never a mere reference.
    """
    counts: dict[str, int] = {}
    recursive: set[str] = set()

    def count(schema: Mapping[str, Any], passed: tuple[str, ...]) -> None:
        name = referenced(schema)
        if name is not None:
            counts[name] = counts.get(name, 0) + 1
            if name in passed:
                recursive.update(passed[passed.index(name) :])
            elif counts[name] == 1:
                count(found[name], (*passed, name))
        for part in parts_of(schema):
            count(part, passed)

    count(root, ())
    kept = {name for name, uses in counts.items() if uses > 1 or name in recursive}

    def inlined(schema: Schema) -> Schema:
        name = referenced(schema)
        if name is None or name in kept:
            return rewritten(schema, inlined)
        siblings = {word: value for word, value in schema.items() if word != "$ref"}
        return with_words(inlined(found[name]), siblings)

    name = referenced(root)
    whole = inlined(root if name is None else found[name])
    if name is not None and name not in recursive:
        kept.discard(name)
    definitions = {name: rewritten(found[name], inlined) for name in found if name in kept}
    return {**whole, "$defs": definitions} if definitions else whole
