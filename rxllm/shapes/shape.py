"""`Shape`: a Python type as the shape of an answer, with its JSON schema and its decoder."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from attrs import field, frozen
from typing_extensions import TypeForm

from ..errors import ParseError
from .problems import Problems
from .spelling import plain_name, spelled

if TYPE_CHECKING:
    import msgspec

    from .nodes import Node

__all__ = ["WRAPPER", "Shape", "shape_of"]

T = TypeVar("T")

WRAPPER = "value"
"""The key under which a value that is not an object is sent."""


@frozen
class Shape(Generic[T]):
    """A Python type as the shape of an answer.

    Two shapes are equal if they have the same name and the same schema, because a model cannot distinguish them.

    Attributes:
        type: the type, such as a class, ``list[int]`` or ``int | None``.
        name: a name for the provider.
        schema: the JSON schema of the answer. It is always an object, and it is closed: it names all properties, or the
            schema of all others. A string with ``enum``, ``const``, ``format``, ``pattern`` or ``contentEncoding``
            means nothing before it is whole.
        wrapped: whether the answer is ``{"value": …}``, because the type's values are not always objects. This depends
            on the type only.
    """

    type: TypeForm[T] = field(eq=False)
    name: str
    schema: Mapping[str, Any] = field(hash=False)
    wrapped: bool
    _node: Node = field(eq=False)

    def __repr__(self) -> str:
        return f"shape_of({spelled(self.type)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the type. Unpickling creates the shape again."""
        return shape_of, (self.type,)

    def decode(self, value: object, *, has_decimals: bool = False) -> T:
        """Return the plain data of a value, without its wrapper, as the type.

        Args:
            value: the data.
            has_decimals: whether its numbers with a fraction are Decimals.

        Raises:
            ParseError: the data does not fit the type.
        """
        return self._decode(value, "", has_decimals=has_decimals)

    def decode_text(self, text: str) -> T:
        """Return the JSON text of an answer, with or without its wrapper, as the type.

        Raises:
            ParseError: the text is not one JSON value, or the value does not fit the type.
        """
        if not text or text.isspace():
            raise ParseError("The answer is empty.", reason="empty", text=text, shape=self.type)
        try:
            value = _read(text)
        except ParseError as error:
            error.text, error.shape = text, self.type
            raise
        if not self.wrapped or not isinstance(value, dict):
            return self._decode(value, text)
        members = cast("dict[str, object]", value)
        if [*members] != [WRAPPER]:
            return self._decode(members, text)
        try:
            return self._decode(members[WRAPPER], text)
        except ParseError:
            if "object" in self._node.kinds:
                with suppress(ParseError):
                    return self._decode(members, text)
            raise

    def decode_element(self, text: str) -> T:
        """Return the JSON text of an element of a list, which has no wrapper of its own, as the type.

        Raises:
            ParseError: the text is not one JSON value, or the value does not fit the type.
        """
        return self._decode(_read(text), text)

    def _decode(self, value: object, text: str, *, has_decimals: bool = True) -> T:
        problems = Problems(has_decimals=has_decimals)
        result = self._node.read(value, problems)
        if problems.total:
            raise self._mismatch(problems, text)
        return cast("T", result)

    def _mismatch(self, problems: Problems, text: str) -> ParseError:
        places = problems.shown()
        found = [f"{what}, at {path}" for what, path in places]
        if problems.total > len(found):
            found.append(f"and {problems.total - len(found)} more")
        message = f"The answer does not fit {spelled(self.type)}: {'; '.join(found)}."
        path = places[0][1]
        return ParseError(message, reason="mismatch", path=path, problems=found, text=text, shape=self.type)


def _read(text: str) -> object:
    """Return the plain data of JSON text.

    Raises:
        ParseError: the text is not one JSON value.
    """
    try:
        return _decoder().decode(text)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise _error_of(text, error) from None


def _error_of(text: str, error: Exception) -> ParseError:
    """Return the error of a text that msgspec cannot read: the text is either incomplete or malformed."""
    from .growing import GrowingJSON

    growing = GrowingJSON()
    try:
        growing.feed(text)
        growing.end()
    except ParseError as precise:
        return precise
    return ParseError(f"The answer is not one JSON value: {error}.", reason="malformed")


@functools.cache
def _decoder() -> msgspec.json.Decoder[Any]:
    """Return a decoder whose numbers with a fraction are Decimals, so that a Decimal gets all digits."""
    from decimal import Decimal

    import msgspec  # imported here, as few programs ask for a shape

    return msgspec.json.Decoder(float_hook=Decimal)


def shape_of(shape: TypeForm[T] | Shape[T]) -> Shape[T]:
    """Return the shape of a type. The result is cached.

    Raises:
        MisuseError: JSON cannot express the type, or the types of a union cannot be distinguished.
    """
    return _found(cast("Any", shape))


def _found(kind: Any) -> Shape[Any]:
    if issubclass(type(kind), Shape):
        return kind  # type: ignore[no-any-return]
    try:
        hash(kind)
    except TypeError:  # such as Annotated[int, {}]
        return _create(kind)
    return _cached(kind)


def _create(kind: Any) -> Shape[Any]:
    from .schemas import Definitions, completed
    from .types import node_of  # imported here, because few programs need it

    node = node_of(kind)
    definitions = Definitions()
    schema = node.schema(definitions)
    is_object = [*node.kinds] == ["object"] and "anyOf" not in completed(schema, definitions.found)
    if not is_object:
        schema = {
            "type": "object",
            "properties": {WRAPPER: schema},
            "required": [WRAPPER],
            "additionalProperties": False,
        }
    return Shape(kind, plain_name(spelled(kind)), completed(schema, definitions.found), not is_object, node)


_cached = functools.lru_cache(512)(_create)
