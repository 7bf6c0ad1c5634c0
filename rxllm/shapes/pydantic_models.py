"""The node of pydantic's models and dataclasses, which write their schema and validate by themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pydantic.json_schema
from attrs import frozen

from ..misuse import MisuseError
from .nodes import Schema
from .preparing import DECIMAL, Preparing, kinds_in
from .problems import INVALID, Problems, typed
from .schemas import referenced, rewritten
from .unions import Members, ObjectLike

if TYPE_CHECKING:
    from .schemas import Definitions

__all__ = ["pydantic_node"]

_DROPPED = ("title", "default", "discriminator", "deprecated", "readOnly", "writeOnly")


class _JSONSchema(pydantic.json_schema.GenerateJsonSchema):
    """Marks Decimals, so that they differ from a union of numbers and texts."""

    def decimal_schema(self, schema: Any) -> Schema:
        written = super().decimal_schema(schema)
        return {
            **written,
            "anyOf": [{**part, **DECIMAL} if part["type"] == "string" else part for part in written["anyOf"]],
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
        return kinds_in(self.raw, self._found)

    @property
    def _found(self) -> Mapping[str, Schema]:
        found: Mapping[str, Schema] = self.raw.get("$defs", {})
        return found

    @property
    def _root(self) -> Schema:
        name = referenced(self.raw)
        return self.raw if name is None else self._found[name]

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
        prepared = Preparing(self._found, problems).read(value, self.raw)
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
        own = self._found

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
