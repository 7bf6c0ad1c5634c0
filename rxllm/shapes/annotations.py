"""Reads the constraints of msgspec, annotated_types and pydantic in `Annotated`, in the words of msgspec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from ..misuse import MisuseError, shown

__all__ = ["facts_of"]

_OF_META = ("ge", "gt", "le", "lt", "multiple_of", "pattern", "min_length", "max_length", "tz")
_OF_ANNOTATED_TYPES = {
    "Ge": "ge",
    "Gt": "gt",
    "Le": "le",
    "Lt": "lt",
    "MultipleOf": "multiple_of",
    "MinLen": "min_length",
    "MaxLen": "max_length",
}
_HARMLESS = {"title", "strict", "frozen", "repr", "deprecated", "examples", "description", "metadata", "annotation"}


def facts_of(item: object) -> Iterator[tuple[str, Any]]:
    """Yield the constraints, the description and further words of JSON schema in one item of `Annotated`.

    Objects of other libraries are ignored, as PEP 593 requires.
    """
    value = cast("Any", item)
    library = type(item).__module__.partition(".")[0]
    if isinstance(item, str):
        yield "description", item
    elif isinstance(item, msgspec.Meta):
        yield from _facts_of_meta(item)
    elif library == "annotated_types":
        yield from _facts_of_annotated_types(value)
    elif library in ("pydantic", "pydantic_core"):
        yield from _facts_of_pydantic(value)
    elif type(item).__name__ == "Doc" and isinstance(getattr(item, "documentation", None), str):
        yield "description", value.documentation


def _facts_of_meta(meta: msgspec.Meta) -> Iterator[tuple[str, Any]]:
    for word in _OF_META:
        if (value := getattr(meta, word)) is not None:
            yield word, value
    if meta.description is not None:
        yield "description", meta.description
    if meta.examples is not None:
        yield "examples", [*meta.examples]
    yield from (meta.extra_json_schema or {}).items()


def _facts_of_annotated_types(item: Any) -> Iterator[tuple[str, Any]]:
    name = type(item).__name__
    if name in _OF_ANNOTATED_TYPES:
        word = _OF_ANNOTATED_TYPES[name]
        yield word, getattr(item, word)
    elif name in ("Interval", "Len"):
        for each in item:
            yield from _facts_of_annotated_types(each)
    elif name == "Timezone" and item.tz in (None, ...):
        yield "tz", item.tz is ...
    elif name == "Unit":
        yield "description", f"in {item.unit}"
    elif name == "DocInfo":
        yield "description", item.documentation
    else:
        raise MisuseError(
            f"The constraint {shown(item)} can't be sent to a model. Check it in the class itself, as in __post_init__."
        )


def _facts_of_pydantic(item: Any) -> Iterator[tuple[str, Any]]:
    """Yield the facts of a ``pydantic.Field`` or of pydantic's own constraints."""
    name = type(item).__name__.lstrip("_")
    if name == "FieldInfo":
        fields = set(getattr(item, "_attributes_set", {})) - _HARMLESS - {*_OF_META, "alias_priority"}
        if fields:
            raise MisuseError(
                f"Outside of a pydantic model, pydantic.Field(…) may have constraints and a description, not "
                f"{', '.join(sorted(fields))}. Make the class a pydantic model."
            )
        for each in item.metadata:
            yield from facts_of(each)
        if item.description is not None:
            yield "description", item.description
        if item.examples:
            yield "examples", [*item.examples]
    elif name in ("PydanticGeneralMetadata", "StringConstraints", "Strict"):
        given: dict[str, Any] = item.__dict__
        facts = {word: value for word, value in given.items() if value is not None and word != "strict"}
        if unknown := facts.keys() - {*_OF_META}:
            raise MisuseError(
                f"Outside of a pydantic model, rxllm does not know the constraint {', '.join(sorted(unknown))}. Make "
                "the class a pydantic model."
            )
        yield from facts.items()
    else:
        raise MisuseError(
            f"rxllm does not run {name} of pydantic outside of a pydantic model. Make the class a pydantic model."
        )
