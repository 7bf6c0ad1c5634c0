"""`Outline`: the strings of a JSON document that may be shown before they are complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

__all__ = ["Outline"]

Schema = Mapping[str, Any]

_ATOMIC = ("enum", "const", "format", "pattern", "contentEncoding")  # words of a schema for text that is not free


class Outline:
    """One place in documents of a JSON schema, such as a member of an object.

    Free text may be shown while it grows. The beginning of a date, of a decimal number, of an enum's value or of base64
    means nothing, so these appear when they are whole.

    Attributes:
        grows: whether a string at this place may be shown before it is complete. Without a hint in the schema it may.
    """

    __slots__ = ("_others", "_root", "_schemas", "_steps", "grows")

    def __init__(self, schemas: Sequence[Schema], root: Schema) -> None:
        self._root = root
        self._schemas = tuple(found for schema in schemas for found in _alternatives(schema, root, ()))
        self._steps: dict[str | int, Outline] = {}
        self._others: Outline | None = None
        self.grows = any(map(_is_free_text, self._schemas)) or not any(map(_holds_text, self._schemas))

    @classmethod
    def of(cls, schema: Schema, wrapper: str | None = None) -> Outline:
        """Return the outline of whole documents.

        Args:
            schema: the JSON schema of the documents.
            wrapper: the key of a member that a document may also be by itself, without the object around it.
        """
        return cls([schema] if wrapper is None else [schema, schema["properties"][wrapper]], schema)

    def at(self, step: str | int) -> Outline:
        """Return the outline of a member of an object, by its key, or of an element of a list, by its index."""
        found = self._steps.get(step)
        if found is None:
            if not any(_has_own(schema, step) for schema in self._schemas):
                return self._other(step)
            found = Outline([_below(schema, step) for schema in self._schemas], self._root)
            self._steps[step] = found
        return found

    def _other(self, step: str | int) -> Outline:
        """Return the outline of all steps that the schema does not name. There may be any number of these."""
        if self._others is None:
            self._others = Outline([_below(schema, step) for schema in self._schemas], self._root)
        return self._others


def _alternatives(schema: object, root: Schema, passed: tuple[object, ...]) -> Iterator[Schema]:
    """Yield the schemas that a value at this place may have, without references and unions."""
    if not isinstance(schema, Mapping):  # True, False, or absent
        return
    here = cast("Schema", schema)
    reference = here.get("$ref")
    if isinstance(reference, str):
        if reference not in passed:
            yield from _alternatives(_resolved(reference, root), root, (*passed, reference))
        return
    unions = [here[word] for word in ("anyOf", "oneOf", "allOf") if word in here]
    if not unions:
        yield here
    for union in unions:
        for each in union:
            yield from _alternatives(each, root, passed)


def _resolved(reference: str, root: Schema) -> object:
    """Return the schema that a reference such as ``#/$defs/Recipe`` names, or None."""
    found: object = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name:
            key = name.replace("~1", "/").replace("~0", "~")
            found = cast("Schema", found).get(key) if isinstance(found, Mapping) else None
    return found


def _has_own(schema: Schema, step: str | int) -> bool:
    """Return whether the schema describes this step apart from the others."""
    if isinstance(step, str):
        return step in schema.get("properties", ())
    return step < len(schema.get("prefixItems", ()))


def _below(schema: Schema, step: str | int) -> Any:
    if isinstance(step, str):
        return schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    own = schema.get("prefixItems", ())
    return own[step] if step < len(own) else schema.get("items")


def _holds_text(schema: Schema) -> bool:
    """Return whether a value of the schema may be a string."""
    kinds = schema.get("type")
    if kinds is not None:
        return kinds == "string" or (isinstance(kinds, (list, tuple)) and "string" in kinds)
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    return not values or any(isinstance(value, str) for value in values)


def _is_free_text(schema: Schema) -> bool:
    return _holds_text(schema) and not any(word in schema for word in _ATOMIC)
