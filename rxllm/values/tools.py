"""What a model is told about tools and about the form of its answer, in words that no vendor owns.

Definitions in the usual vendors' spellings are read into these, so that any provider can translate them. A dict that
has more than these can say stays as it is: the provider in whose form it is sends it untouched, others refuse it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

from attrs import field, frozen
from attrs.validators import optional

from ..misuse import MisuseError, is_text, must_be, shown
from ..showing import brief
from .parts import is_mapping

__all__ = ["ANSWER", "Effort", "ResponseSchema", "ToolSpec"]

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How hard to think before the answer; models know some of these."""

ANSWER = "answer"  # what a schema is called that has no name
_CHOICES = ("auto", "none", "required")
_BARE: Mapping[str, Any] = {"type": "object", "properties": {}}


@frozen
class ToolSpec:
    """What a model is told of one tool.

    Attributes:
        name: what the model calls it by.
        description: what it does, and when to use it.
        parameters: the JSON schema of its arguments, an object.
        strict: whether the arguments must fit the schema exactly; None leaves that to the provider.
    """

    name: str = field(validator=must_be("a name", lambda name: isinstance(name, str) and bool(name)))
    description: str = field(default="", validator=must_be("text", is_text))
    parameters: Mapping[str, Any] = field(
        default=_BARE, validator=must_be("a JSON schema, as a dict", is_mapping), hash=False
    )
    strict: bool | None = field(
        default=None, validator=optional(must_be("True or False", lambda strict: isinstance(strict, bool)))
    )

    __repr__ = brief

    @name.validator  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUntypedFunctionDecorator]
    def _not_a_choice(self, _: object, name: str) -> None:
        if name in _CHOICES:
            raise MisuseError(f"A tool can't be called {name!r}, which is a tool_choice.")


@frozen
class ResponseSchema:
    """The JSON schema that an answer must fit.

    Attributes:
        schema: the JSON schema.
        name: what the provider calls it.
        strict: whether the answer must fit exactly; None leaves that to the provider.
        description: what the answer is.
    """

    schema: Mapping[str, Any] = field(validator=must_be("a JSON schema, as a dict", is_mapping), hash=False)
    name: str = field(default=ANSWER, validator=must_be("text", is_text))
    strict: bool | None = None
    description: str | None = None

    __repr__ = brief


ToolLike = ToolSpec | Mapping[str, Any]


def tools_of(given: object) -> tuple[ToolLike, ...] | None:
    """One definition or several; those that are understood are neutral.

    Raises:
        MisuseError: one is no definition of a tool.
    """
    if given is None:
        return None
    several = isinstance(given, Iterable) and not isinstance(given, (str, Mapping))
    items = cast("Iterable[object]", given if several else (given,))
    tools = tuple(map(_tool_of, items))
    names = [tool.name for tool in tools if isinstance(tool, ToolSpec)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MisuseError(f"Two tools are called {twice!r}; the model could not tell them apart.")
    return tools


def _tool_of(given: object) -> ToolLike:
    if isinstance(given, ToolSpec):
        return given
    if not isinstance(given, Mapping):
        raise MisuseError(f"tools must be one or more ToolSpecs or dicts that define a tool, not {shown(given)}.")
    fields = dict(cast("Mapping[str, Any]", given))
    kind = fields.pop("type", None)
    if kind == "function" and fields.keys() == {"function"} and isinstance(fields["function"], Mapping):
        fields = dict(cast("Mapping[str, Any]", fields["function"]))
    elif kind not in (None, "function", "custom"):
        return cast("Mapping[str, Any]", given)
    for spelling in ("input_schema", "schema"):
        if spelling in fields and "parameters" not in fields:
            fields["parameters"] = fields.pop(spelling)
    known = {"name", "description", "parameters", "strict"} >= fields.keys()
    if not known or "name" not in fields or (kind == "custom" and "parameters" not in fields):
        return cast("Mapping[str, Any]", given)
    fields = {name: value for name, value in fields.items() if value is not None}
    return ToolSpec(**fields)


def tool_choice_of(given: str | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    """``auto``, ``none``, ``required`` or a tool's name; a dict that says more than that stays as it is."""
    if not isinstance(given, Mapping):
        return "required" if given == "any" else given
    match dict(given):
        case {"type": "any", **rest} if not rest:
            return "required"
        case {"type": "auto" | "none" | "required" as choice, **rest} if not rest:
            return str(choice)
        case {"type": "function", "function": {"name": str(name)}, **rest} if not rest:
            return name
        case {"type": "tool" | "function", "name": str(name), **rest} if not rest:
            return name
        case _:
            return given


def response_format_of(given: object) -> Literal["json"] | ResponseSchema | Mapping[str, Any] | None:
    """``"json"`` or a schema; a dict that is neither stays as it is."""
    if not isinstance(given, Mapping):
        return cast('Literal["json"] | None', given)
    form = dict(cast("Mapping[str, Any]", given))
    kind = form.pop("type", None)
    if kind == "json_object" and not form:
        return "json"
    if kind == "json_schema":
        inner = form.pop("json_schema", None) if form.keys() == {"json_schema"} else form
        return _schema_of(inner) or cast("Mapping[str, Any]", given)
    return ResponseSchema(cast("Any", given)) if _is_schema(kind, form) else cast("Mapping[str, Any]", given)


def _schema_of(told: object) -> ResponseSchema | None:
    if not isinstance(told, Mapping):
        return None
    fields = {name: value for name, value in cast("dict[str, Any]", told).items() if value is not None}
    known = {"schema", "name", "strict", "description"} >= fields.keys() and "schema" in fields
    return ResponseSchema(**fields) if known else None


_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def _is_schema(kind: object, others: Mapping[str, Any]) -> bool:
    if kind is not None:
        return kind in _TYPES or isinstance(kind, list)
    return any(word in others for word in ("$ref", "anyOf", "oneOf", "allOf", "enum", "const"))
