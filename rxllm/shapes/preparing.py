"""`Preparing`: turns plain data into what a pydantic model takes, by the JSON schema of the model."""

from __future__ import annotations

import decimal
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, evolve, field

from .nodes import Schema, with_floats
from .problems import INVALID, KINDS, Problems, as_array, as_integer, as_object, kind_of, typed, unquoted
from .schemas import referenced

__all__ = ["DECIMAL", "Preparing", "kinds_in"]

DECIMAL = {"format": "decimal"}
"""The words that mark the text of a Decimal in a schema, so that it differs from a union of numbers and texts."""


_PLAIN: Mapping[type, str] = {str: "string", int: "integer", bool: "boolean"}


@define
class Preparing:
    """Prepares the data of one model.

    It drops the nulls that stand for the default of a field, and notes unknown keys. Decimals stay only for a Decimal,
    since pydantic reads them as texts, which have all digits. Where a union has several types, it reads the data as the
    type that fits best.

    Attributes:
        found: the definitions of the schema.
        problems: the problems so far.
        missing: the number of missing keys, which pydantic reports.
        misfits: the number of values of a wrong kind, which pydantic may convert.
        choices: for each list or object and its union, by their ids, the type that fits best, or None. So each is
            chosen once, however deep it is. The value is kept, so that no other value gets its id.
    """

    found: Mapping[str, Schema]
    problems: Problems
    missing: int = 0
    misfits: int = 0
    choices: dict[tuple[int, int], tuple[object, Schema | None]] = field(
        factory=dict[tuple[int, int], "tuple[object, Schema | None]"]
    )

    def read(self, value: object, schema: Schema) -> Any:
        """Return the data as pydantic takes it. If pydantic must not get it, note the problems and return anything."""
        if _PLAIN.get(type(value)) == schema.get("type", ()) and "enum" not in schema:  # most values; only to save time
            return value
        types = [*_types(schema, self.found)]
        if isinstance(value, str) and not any("string" in _kinds(each) for each in types):
            value = unquoted(value, self.problems)
        if isinstance(value, decimal.Decimal):
            return self._number(value, types)
        fitting = [each for each in types if _takes(each, value)]
        if not fitting:
            self.misfits += 1
            return with_floats(value, self.problems)
        if as_array(value) is None and as_object(value) is None:
            return value
        if self.problems.is_too_deep():
            return INVALID
        self.problems.depth += 1
        prepared = self._container(value, fitting, schema)
        self.problems.depth -= 1
        return prepared

    def _container(self, value: object, types: list[Schema], union: Schema) -> Any:
        members = as_object(value)
        if len(types) > 1 and members is not None:
            types = self._narrowed(members, types)
        closest = types[0] if len(types) == 1 else self._closest(value, types, union)
        if closest is None:
            return self.problems.add("the fields fit none of the possible types")
        return self._items(as_array(value) or [], closest) if members is None else self._members(members, closest)

    def _number(self, value: decimal.Decimal, types: list[Schema]) -> Any:
        if any(each.get("format") == DECIMAL["format"] for each in types):
            return value
        kinds = {kind for each in types for kind in _kinds(each)}
        whole = as_integer(value) if "integer" in kinds and "number" not in kinds else None
        self.misfits += whole is None and "number" not in kinds
        return with_floats(value, self.problems) if whole is None else whole

    def _items(self, value: list[Any], schema: Schema) -> list[Any]:
        places = schema.get("prefixItems", ())
        schemas = [*places, *[schema.get("items")] * (len(value) - len(places))]
        items: list[Any] = []
        for index, (item, part) in enumerate(zip(value, schemas, strict=False)):
            before = self.problems.total
            inner = as_object(part)
            items.append(with_floats(item, self.problems) if inner is None else self.read(item, inner))
            self.problems.within(index, before)
        return [*items, *with_floats(value[len(items) :], self.problems)]

    def _members(self, value: dict[str, Any], schema: Schema) -> dict[str, Any]:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        required = schema.get("required", ())
        self.missing += len({*required} - value.keys())
        kept: dict[str, Any] = {}
        for key, member in value.items():
            part = properties.get(key, others)
            if part is False:
                self.problems.add(f"there is no field {key!r:.60}")
            elif (inner := as_object(part)) is None:
                kept[key] = with_floats(member, self.problems)
            elif (
                member is not None or key not in properties or key in required or "null" in kinds_in(inner, self.found)
            ):
                before = self.problems.total
                kept[key] = self.read(member, inner)
                self.problems.within(key, before)
        return kept

    def _narrowed(self, value: dict[str, Any], types: list[Schema]) -> list[Schema]:
        """Return the types that an object may have, judged by its tag and by its keys."""
        tagged = [each for each in types if self._has_the_tag(value, each)] or types
        return [each for each in tagged if _has_the_keys(value, each)] if len(tagged) > 1 else tagged

    def _has_the_tag(self, value: dict[str, Any], schema: Schema) -> bool:
        """Return whether an object has none but the listed values at the keys that have a few values."""
        for key in value.keys() & schema.get("properties", {}).keys():
            choices = [*_types(schema["properties"][key], self.found)]
            is_listed = value[key] is None or any(_takes(each, value[key]) for each in choices)
            if not is_listed and all("enum" in each for each in choices):
                return False
        return True

    def _closest(self, value: object, types: list[Schema], union: Schema) -> Schema | None:
        """Return the type of a union that fits a list or an object best, or None if none fits."""
        key = id(value), id(union)
        if key not in self.choices:
            trials = [(self._trial(value, each), each) for each in types]
            best, closest = min(trials, key=lambda each: each[0].distance, default=(self, None))
            # Pydantic would take another type, and drop the keys that this one refuses.
            is_torn = not best.problems.total and best.missing and any(trial.problems.total for trial, _ in trials)
            self.choices[key] = value, None if is_torn else closest
        return self.choices[key][1]

    def _trial(self, value: object, schema: Schema) -> Preparing:
        problems = Problems(has_decimals=self.problems.has_decimals)
        problems.depth = self.problems.depth - 1  # as before the value was entered
        trial = evolve(self, problems=problems, missing=0, misfits=0)
        trial.read(value, schema)
        return trial

    @property
    def distance(self) -> tuple[int, int]:
        """How far the data is from the schema: what is refused counts before what pydantic may convert."""
        return self.problems.total + self.missing, self.misfits


def kinds_in(schema: Schema, found: Mapping[str, Schema]) -> frozenset[str]:
    """Return JSON's kinds of the values that fit a schema."""
    return frozenset(kind for each in _types(schema, found) for kind in _kinds(each))


def _types(schema: Schema, found: Mapping[str, Schema]) -> Iterator[Schema]:
    """Yield the schemas of the types of a union, or the schema itself, without references."""
    name = referenced(schema)
    if name is not None:
        yield from _types(found[name], found)
    elif "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from _types(part, found)
    else:
        yield schema


def _kinds(schema: Schema) -> list[str]:
    kinds = schema.get("type", [*KINDS])
    return [kinds] if isinstance(kinds, str) else kinds


def _takes(schema: Schema, value: object) -> bool:
    """Return whether a value is of a schema's kind and one of its listed values."""
    kind = "integer" if (whole := as_integer(value)) is not None else kind_of(value)
    if "enum" in schema:
        return typed(value if whole is None else whole) in map(typed, schema["enum"])
    kinds = _kinds(schema)
    return kind in kinds or (kind == "integer" and "number" in kinds)


def _has_the_keys(value: dict[str, Any], schema: Schema) -> bool:
    """Return whether an object may fit a schema, judged by its keys."""
    if "properties" not in schema:
        return True
    is_open = schema.get("additionalProperties") is not False
    return {*schema.get("required", ())} <= value.keys() and (is_open or value.keys() <= {*schema["properties"]})
