"""Neutral definitions of tools, of the tool choice and of the response format.

rxllm converts definitions in the usual vendors' forms to these, and each provider translates these to its own form. A
dict with more fields than the neutral form stays a dict: the provider that uses this form sends it unchanged, other
providers raise MisuseError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, cast

import msgspec
from attrs import field, frozen
from attrs.validators import optional

from ..misuse import MisuseError, is_mapping, is_text, must_be, shown
from ..public import Public
from ..showing import brief

__all__ = ["ANSWER", "Effort", "ResponseSchema", "ToolSpec", "unquoted"]

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model reasons before it answers. Each model supports some of these values."""

ANSWER = "answer"  # the default name of a schema
_CHOICES = ("auto", "none", "required")
_BARE: Mapping[str, Any] = {"type": "object", "properties": {}}


def unquoted(arguments: str) -> str:
    """Return the arguments of a call. If a model wrote their JSON as a JSON text, return what this text contains."""
    if not arguments.lstrip().startswith('"'):
        return arguments
    try:
        inner = msgspec.json.decode(arguments, type=str)
        msgspec.json.decode(inner or "{}", type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        return arguments
    return inner


def _is_object(schema: object) -> bool:
    return is_mapping(schema) and schema.get("type") == "object"


def _with_properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of an object with properties, even if it has none, since OpenAI refuses one without.

    Servers of MCP leave them out for a tool without arguments, or write null in their place.
    """
    if not _is_object(schema):
        return schema
    told = {
        name: value for name, value in schema.items() if value is not None or name not in ("properties", "required")
    }
    return {**told, "properties": {}} if "properties" not in told else told


@frozen
class ToolSpec(metaclass=Public):
    """The definition of one tool for a model.

    Attributes:
        name: the name that the model uses to call the tool.
        description: the purpose of the tool, and when the model should use it.
        parameters: the JSON schema of the arguments, an object.
        strict: whether the arguments must fit the schema exactly; None leaves that to the provider.
    """

    name: str = field(validator=must_be("a name", lambda name: isinstance(name, str) and bool(name)))
    description: str = field(default="", validator=must_be("text", is_text))
    parameters: Mapping[str, Any] = field(
        default=_BARE,
        converter=_with_properties,
        validator=must_be("a JSON schema of an object, as in {'type': 'object', 'properties': {…}}", _is_object),
        hash=False,
    )
    strict: bool | None = field(
        default=None, validator=optional(must_be("True or False", lambda strict: isinstance(strict, bool)))
    )

    __repr__ = brief

    @name.validator  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUntypedFunctionDecorator]
    def _not_a_choice(self, _: object, name: str) -> None:
        if name in _CHOICES:
            raise MisuseError(f"A tool can't have the name {name!r}, because this word is a tool_choice. Rename it.")


@frozen
class ResponseSchema(metaclass=Public):
    """The JSON schema that an answer must fit.

    Attributes:
        schema: the JSON schema.
        name: the name of the schema for the provider.
        strict: whether the answer must fit exactly; None leaves that to the provider.
        description: the meaning of the answer.
    """

    schema: Mapping[str, Any] = field(validator=must_be("a JSON schema, as a dict", is_mapping), hash=False)
    name: str = field(default=ANSWER, validator=must_be("text", is_text))
    strict: bool | None = None
    description: str | None = None

    __repr__ = brief


ToolLike = ToolSpec | Mapping[str, Any]


class Specified(Protocol):
    """A tool that knows its definition, such as a function under `rxllm.tool`."""

    @property
    def spec(self) -> ToolSpec:
        """The definition."""
        ...


def tools_of(value: object) -> tuple[ToolLike, ...] | None:
    """Convert one tool definition or several to a tuple, in the neutral form where that is possible.

    Raises:
        MisuseError: an item does not define a tool, or two tools have the same name.
    """
    if value is None:
        return None
    several = isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    items = cast("Iterable[object]", value if several else (value,))
    tools = tuple(map(_tool_of, items))
    names = [tool.name for tool in tools if isinstance(tool, ToolSpec)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MisuseError(f"Two tools have the name {twice!r}, so the model could not distinguish them. Rename one.")
    return tools


def _tool_of(item: object) -> ToolLike:
    if isinstance(item, ToolSpec):
        return item
    if isinstance(spec := getattr(item, "spec", None), ToolSpec):
        return spec
    if not isinstance(item, Mapping):
        raise MisuseError(f"tools must be one or more tools, ToolSpecs or dicts that define a tool, not {shown(item)}.")
    fields = dict(cast("Mapping[str, Any]", item))
    kind = fields.pop("type", None)
    if kind == "function" and fields.keys() == {"function"} and isinstance(fields["function"], Mapping):
        fields = dict(cast("Mapping[str, Any]", fields["function"]))
    elif kind not in (None, "function", "custom"):
        return cast("Mapping[str, Any]", item)
    for spelling in ("input_schema", "schema"):
        if spelling in fields and "parameters" not in fields:
            fields["parameters"] = fields.pop(spelling)
    is_neutral = {"name", "description", "parameters", "strict"} >= fields.keys()
    if not is_neutral or "name" not in fields or (kind == "custom" and "parameters" not in fields):
        return cast("Mapping[str, Any]", item)
    fields = {name: value for name, value in fields.items() if value is not None or name == "name"}
    spec = ToolSpec(**fields)
    if "parameters" not in fields:
        raise MisuseError(
            f"The tool {spec.name!r} has no JSON schema. A tool without arguments has the parameters "
            "{'type': 'object', 'properties': {}}."
        )
    return spec


def name_of_tool(tool: ToolLike) -> str | None:
    """Return the name of a tool, also in a dict in a provider's own form; None if the dict has none."""
    if isinstance(tool, ToolSpec):
        return tool.name
    function = tool.get("function")
    name = tool.get("name") or (function.get("name") if is_mapping(function) else None)
    return name if isinstance(name, str) else None


def tool_choice_of(choice: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """Convert a tool choice to ``auto``, ``none``, ``required`` or a tool's name. Other dicts stay unchanged."""
    if not isinstance(choice, Mapping):
        return "required" if choice == "any" else choice
    match dict(choice):
        case {"type": "any", **rest} if not rest:
            return "required"
        case {"type": "auto" | "none" | "required" as word, **rest} if not rest:
            return str(word)
        case {"type": "function", "function": {"name": str(name)}, **rest} if not rest:
            return name
        case {"type": "tool" | "function", "name": str(name), **rest} if not rest:
            return name
        case _:
            return choice


def response_format_of(value: object) -> Literal["json"] | ResponseSchema | Mapping[str, Any] | None:
    """Convert a response format to ``"json"`` or a ResponseSchema. Other dicts stay unchanged."""
    if not isinstance(value, Mapping):
        return cast('Literal["json"] | None', value)
    form = dict(cast("Mapping[str, Any]", value))
    kind = form.pop("type", None)
    if kind == "json_object" and not form:
        return "json"
    if kind == "json_schema":
        inner = form.pop("json_schema", None) if form.keys() == {"json_schema"} else form
        return _schema_of(inner) or cast("Mapping[str, Any]", value)
    return ResponseSchema(cast("Any", value)) if _is_schema(kind, form) else cast("Mapping[str, Any]", value)


def _schema_of(value: object) -> ResponseSchema | None:
    if not isinstance(value, Mapping):
        return None
    fields = {name: item for name, item in cast("dict[str, Any]", value).items() if item is not None}
    is_neutral = {"schema", "name", "strict", "description"} >= fields.keys() and "schema" in fields
    return ResponseSchema(**fields) if is_neutral else None


_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def _is_schema(kind: object, others: Mapping[str, Any]) -> bool:
    if kind is not None:
        return kind in _TYPES or isinstance(kind, list)
    return any(word in others for word in ("$ref", "anyOf", "oneOf", "allOf", "enum", "const"))
