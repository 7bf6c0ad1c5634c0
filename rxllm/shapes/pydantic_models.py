"""The node of pydantic's models and dataclasses, which write their schema and validate by themselves."""

from __future__ import annotations

import decimal
import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pydantic.json_schema
from attrs import frozen

from ..misuse import MisuseError
from .nodes import Schema, with_floats
from .problems import INVALID, KINDS, Problems, as_array, as_integer, as_object, kind_of, typed, unquoted
from .schemas import referenced, rewritten
from .unions import Members, ObjectLike

if TYPE_CHECKING:
    from .schemas import Definitions

__all__ = ["pydantic_node"]

_MARK = {"format": "decimal"}  # of the texts of Decimals
_DROPPED = ("title", "default", "discriminator", "deprecated", "readOnly", "writeOnly")


class _JSONSchema(pydantic.json_schema.GenerateJsonSchema):
    """Marks Decimals, so that they differ from a union of numbers and texts."""

    def decimal_schema(self, schema: Any) -> Schema:
        written = super().decimal_schema(schema)
        return {
            **written,
            "anyOf": [{**part, **_MARK} if part["type"] == "string" else part for part in written["anyOf"]],
        }


@frozen(eq=False)
class _PydanticNode(ObjectLike):
    """A type of pydantic's.

    Attributes:
        adapter: the validator.
        name: its name.
        raw: its JSON schema, with the definitions of other models.
    """

    adapter: pydantic.TypeAdapter[Any]
    name: str
    raw: Schema

    @cached_property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """The kinds of the schema."""
        return frozenset(_kinds(self._root, self.raw.get("$defs", {})))

    @property
    def _root(self) -> Schema:
        name = referenced(self.raw)
        return self.raw if name is None else self.raw["$defs"][name]

    @cached_property
    def members(self) -> Members:
        """The keys of the model."""
        root = self._root
        properties: Mapping[str, Any] = root.get("properties", {})
        required = frozenset(root.get("required", ()))
        choices = {name: frozenset(map(typed, properties[name].get("enum", ()))) for name in required}
        choices = {name: values for name, values in choices.items() if values}
        is_closed = root.get("additionalProperties") is False
        return Members(required, frozenset(properties) if is_closed else None, choices)

    def read(self, value: Any, problems: Problems) -> Any:
        """Validate as pydantic does for JSON.

        A null for a field that can't be null stands for its default, and unknown keys are a problem.
        """
        start = problems.total
        prepared = _prepared(value, self.raw, self.raw.get("$defs", {}), problems)
        if problems.total > start:
            return INVALID
        try:
            return self.adapter.validate_json(msgspec.json.encode(prepared))
        except pydantic.ValidationError as error:
            for each in error.errors(include_url=False, include_context=False, include_input=False):
                before = problems.total
                problems.add(each["msg"])
                for step in reversed(each["loc"]):
                    problems.within(step, before)
            return INVALID

    def schema(self, definitions: Definitions) -> Schema:
        """Return the schema, with its definitions among those of the whole shape."""
        own: Mapping[str, Schema] = self.raw.get("$defs", {})

        def moved(schema: Schema) -> Schema:
            name = referenced(schema)
            if name is None:
                return rewritten(schema, moved)
            key = ("pydantic", name, json.dumps(own[name], sort_keys=True))
            return {**schema, **definitions.reference(key, name, lambda: moved(own[name]))}

        root = {word: value for word, value in self.raw.items() if word != "$defs"}
        if "properties" not in root:
            return moved(root)
        key = ("pydantic", self.name, json.dumps(root, sort_keys=True))
        return definitions.reference(key, self.name, lambda: moved(root))


def pydantic_node(kind: Any) -> ObjectLike:
    """Return the node of a model.

    Raises:
        MisuseError: pydantic can't write its JSON schema.
    """
    name = getattr(kind, "__name__", str(kind))
    try:
        adapter = pydantic.TypeAdapter(kind)
        raw = adapter.json_schema(mode="validation", schema_generator=_JSONSchema)
    except pydantic.errors.PydanticUserError as error:
        raise MisuseError(f"pydantic can't write the JSON schema of {name}: {error.message}") from None
    return _PydanticNode(adapter, name, _neutral(raw))


def _neutral(schema: Schema) -> Schema:
    """Return a schema of pydantic's in our words: without titles and defaults, closed, with ``enum`` and ``anyOf``."""
    copy = {word: value for word, value in schema.items() if word not in _DROPPED}
    if "const" in copy:
        copy["enum"] = [copy.pop("const")]
    if "oneOf" in copy:
        copy["anyOf"] = copy.pop("oneOf")
    if len(copy.get("allOf", ())) == 1:  # as older versions write a reference with a description
        copy |= copy.pop("allOf")[0]
    if "properties" in copy:
        copy.setdefault("required", [])
        copy.setdefault("additionalProperties", False)
    return rewritten(copy, _neutral)


def _kinds(schema: Mapping[str, Any], found: Mapping[str, Schema]) -> set[str]:
    name = referenced(schema)
    if name is not None:
        return _kinds(found[name], found)
    if "anyOf" in schema:
        return {kind for part in schema["anyOf"] for kind in _kinds(part, found)}
    kinds = schema.get("type", [*KINDS])
    return {kinds} if isinstance(kinds, str) else {*kinds}


def _prepared(value: Any, schema: Mapping[str, Any], found: Mapping[str, Schema], problems: Problems) -> Any:
    """Return plain data without the nulls that stand for the default of a field. Note unknown keys.

    Decimals stay only for a Decimal, since pydantic reads them as texts, which have all digits.
    """
    name = referenced(schema)
    if name is not None:
        return _prepared(value, found[name], found, problems)
    if isinstance(value, str) and "string" not in _kinds(schema, found):
        value = unquoted(value, problems)
    if isinstance(value, decimal.Decimal):
        return _number(value, schema, problems)
    if "anyOf" in schema:
        fitting = [part for part in schema["anyOf"] if _is_of_kind(value, part, found)]
        if len(fitting) > 1:
            fitting = [part for part in fitting if _has_the_keys(value, part, found)]
            if not fitting:
                return problems.add("the fields fit none of the possible types")
        return _prepared(value, fitting[0], found, problems) if len(fitting) == 1 else with_floats(value, problems)
    if (items := as_array(value)) is not None:
        return _prepared_items(items, schema, found, problems)
    if (members := as_object(value)) is not None:
        return _prepared_members(members, schema, found, problems)
    return value


def _number(value: decimal.Decimal, schema: Mapping[str, Any], problems: Problems) -> Any:
    parts = schema.get("anyOf", ())
    if any(part.get("format") == _MARK["format"] for part in parts):
        return value
    kinds = {kind for part in (schema, *parts) for kind in as_array(part.get("type")) or [part.get("type")]}
    whole = as_integer(value) if "integer" in kinds and "number" not in kinds else None
    return with_floats(value, problems) if whole is None else whole


def _prepared_items(
    value: list[Any], schema: Mapping[str, Any], found: Mapping[str, Schema], problems: Problems
) -> Any:
    places = schema.get("prefixItems", ())
    schemas = [*places, *[schema.get("items")] * (len(value) - len(places))]
    items: list[Any] = []
    for index, (item, part) in enumerate(zip(value, schemas, strict=False)):
        before = problems.total
        inner = as_object(part)
        items.append(with_floats(item, problems) if inner is None else _prepared(item, inner, found, problems))
        problems.within(index, before)
    return [*items, *with_floats(value[len(items) :], problems)]


def _prepared_members(
    value: dict[str, Any], schema: Mapping[str, Any], found: Mapping[str, Schema], problems: Problems
) -> Any:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    kept: dict[str, Any] = {}
    for key, member in value.items():
        part = properties.get(key, others)
        if part is False:
            problems.add(f"there is no field {key!r:.60}")
        elif (inner := as_object(part)) is None:
            kept[key] = with_floats(member, problems)
        elif (
            member is not None
            or key not in properties
            or key in schema.get("required", ())
            or "null" in _kinds(inner, found)
        ):
            before = problems.total
            kept[key] = _prepared(member, inner, found, problems)
            problems.within(key, before)
    return kept


def _is_of_kind(value: object, schema: Mapping[str, Any], found: Mapping[str, Schema]) -> bool:
    kind, kinds = kind_of(value), _kinds(schema, found)
    return kind in kinds or (kind == "integer" and "number" in kinds)


def _has_the_keys(value: object, schema: Mapping[str, Any], found: Mapping[str, Schema]) -> bool:
    """Return whether an object may fit a schema, judged by its keys. Other values may fit."""
    name = referenced(schema)
    if name is not None:
        return _has_the_keys(value, found[name], found)
    members = as_object(value)
    if members is None or "properties" not in schema:
        return True
    is_open = schema.get("additionalProperties") is not False
    return {*schema.get("required", ())} <= members.keys() and (is_open or members.keys() <= {*schema["properties"]})
