"""`written`: the schema of a shape in the dialect of a provider."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from .dialects import ANY, Dialect
from .nodes import Schema
from .schemas import parts_of, referenced, rewritten

__all__ = ["Unsuited", "written"]


class Unsuited(Exception):
    """A schema can't be written in a dialect. The message says why, after "because"."""


_CONSTRAINTS: Mapping[str, str] = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "greater than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matching the regular expression {}",
    "minItems": "at least {} elements",
    "maxItems": "at most {} elements",
    "uniqueItems": "without repetitions",
    "minProperties": "at least {} members",
    "maxProperties": "at most {} members",
    "propertyNames": "with keys that fit {}",
    "examples": "for example {}",
    "contentEncoding": "encoded as {}",
}
"""The words of each constraint, for a description."""

_STRUCTURE = frozenset(
    ("type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "$ref", "$defs", "description")
)


def written(schema: Mapping[str, Any], dialect: Dialect) -> Schema:
    """Return a shape's schema in a dialect.

    Raises:
        Unsuited: the dialect lacks something without which data would be lost.
    """
    _check_recursion(schema, dialect)
    result = _written(dict(schema), dialect)
    _check_size(result, dialect)
    return result


def _written(schema: Schema, dialect: Dialect) -> Schema:
    if "prefixItems" in schema and "prefixItems" not in dialect.words:
        schema = _without_places(schema)
    if schema.get("items") is False and dialect is not ANY:  # maxItems says the same, and more providers know it
        schema = {word: value for word, value in schema.items() if word != "items"}
    is_object = schema.get("type") == "object"
    if is_object:
        _check_object(schema, dialect)
    elif not dialect.untyped and not schema.keys() & {"type", "enum", "anyOf", "$ref"}:
        raise Unsuited("it takes no value of any type")
    inner = rewritten(schema, partial(_written, dialect=dialect))
    if is_object and dialect.all_required:
        inner = _all_required(inner)
    return _moved(inner, dialect)


def _without_places(schema: Schema) -> Schema:
    """Return the schema of a tuple as that of a list whose elements may be any of the tuple's."""
    places: list[Schema] = schema["prefixItems"]
    kinds = [place for index, place in enumerate(places) if place not in places[:index]]
    rest = {word: value for word, value in schema.items() if word not in ("prefixItems", "items")}
    items = kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {"type": "null"}
    order = ", ".join(map(_brief, places))
    return _described({**rest, "items": items}, [f"in this order: {order}"] if len(kinds) > 1 else [])


def _brief(schema: Mapping[str, Any]) -> str:
    return str(schema.get("type") or referenced(schema) or json.dumps(schema))


def _check_object(schema: Schema, dialect: Dialect) -> None:
    if not dialect.open_objects and schema.get("additionalProperties") is not False:
        raise Unsuited("it takes no dict, only objects whose keys are all known")
    if dialect.some_required and not schema.get("required"):
        raise Unsuited("it needs a required field in each object")


def _all_required(schema: Schema) -> Schema:
    """Return an object with all properties required; null stands for one that the model leaves out."""
    required = schema.get("required", [])
    properties = {
        name: part if name in required or _takes_null(part) else _or_null(part)
        for name, part in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties, "required": [*properties]}


def _takes_null(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "null" or any(map(_takes_null, schema.get("anyOf", ())))


def _or_null(schema: Schema) -> Schema:
    null = {"type": "null"}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], null]}
    inner = {word: value for word, value in schema.items() if word != "description"}
    described = {"description": schema["description"]} if "description" in schema else {}
    return {"anyOf": [inner, null], **described}


def _moved(schema: Schema, dialect: Dialect) -> Schema:
    """Return the schema with the constraints that the dialect lacks in the description."""
    kept: Schema = {}
    notes: list[str] = []
    for word, value in schema.items():
        if word == "pattern" and dialect.anchored and not (value.startswith("^") and value.endswith("$")):
            notes.append(_phrase(word, value))
        elif word in _STRUCTURE or word in dialect.words:
            kept[word] = value
        elif word == "format":
            if dialect.formats is None or value in dialect.formats:
                kept[word] = value
            elif "pattern" not in schema:
                notes.append(f"in the format {value}")
        elif word in _CONSTRAINTS:
            notes.append(_phrase(word, value))
        else:  # words that the program wrote itself, in extra_json_schema
            kept[word] = value
    kept = _described(kept, notes)
    if "$ref" in kept and "description" in kept and not dialect.siblings:
        return {"anyOf": [{"$ref": kept["$ref"]}], "description": kept["description"]}
    return kept


def _phrase(word: str, value: object) -> str:
    return _CONSTRAINTS[word].format(value if isinstance(value, (str, int, float)) else json.dumps(value))


def _described(schema: Schema, notes: list[str]) -> Schema:
    if not notes:
        return schema
    text = schema.get("description", "")
    return {**schema, "description": f"{text} ({', '.join(notes)})".lstrip()}


def _check_recursion(schema: Mapping[str, Any], dialect: Dialect) -> None:
    """Check that no definition contains itself where the dialect does not take that."""
    if dialect.recursion == "free":
        return
    found: Mapping[str, Schema] = schema.get("$defs", {})
    everywhere = dialect.recursion == "never"
    inside = {name: {*_references(definition, everywhere=everywhere)} for name, definition in found.items()}
    for name in inside:
        reached: set[str] = set()
        new = inside[name]
        while new:
            reached |= new
            new = {each for other in new for each in inside[other]} - reached
        if name in reached:
            raise Unsuited("it takes no type that contains itself" + ("" if everywhere else " in a required field"))


def _references(schema: Mapping[str, Any], *, everywhere: bool) -> Iterator[str]:
    """Yield the definitions that a schema refers to; those in properties that are not required only if `everywhere`."""
    name = referenced(schema)
    if name is not None:
        yield name
    for part in parts_of({word: value for word, value in schema.items() if word != "properties"}):
        yield from _references(part, everywhere=everywhere)
    for key, part in schema.get("properties", {}).items():
        if everywhere or key in schema.get("required", ()):
            yield from _references(part, everywhere=everywhere)


def _check_size(schema: Mapping[str, Any], dialect: Dialect) -> None:
    counts = {"properties": 0, "optional": 0, "unions": 0}
    found: Mapping[str, Schema] = schema.get("$defs", {})

    def depth(part: Mapping[str, Any], passed: tuple[str, ...]) -> int:
        name = referenced(part)
        if name is not None:
            return 0 if name in passed else depth(found[name], (*passed, name))
        inner = {word: value for word, value in part.items() if word != "$defs"}
        return ("type" in part and part["type"] in ("object", "array")) + max(
            (depth(each, passed) for each in parts_of(inner)), default=0
        )

    def count(part: Mapping[str, Any]) -> None:
        names = part.get("properties", {})
        counts["properties"] += len(names)
        counts["optional"] += len(names) - len(part.get("required", ()))
        counts["unions"] += "anyOf" in part
        for each in parts_of(part):
            count(each)

    count(schema)
    for name, limit, what in (
        ("properties", dialect.max_properties, "properties"),
        ("optional", dialect.max_optional, "fields with a default"),
        ("unions", dialect.max_unions, "unions"),
    ):
        if limit is not None and counts[name] > limit:
            raise Unsuited(f"it takes at most {limit} {what}, not {counts[name]}")
    if dialect.max_depth is not None and (levels := depth(schema, ())) > dialect.max_depth:
        raise Unsuited(f"it takes at most {dialect.max_depth} levels of objects and lists, not {levels}")
