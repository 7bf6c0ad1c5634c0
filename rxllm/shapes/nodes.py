"""`Node`: one type within a shape. A node writes the JSON schema of its type, and reads plain data as the type.

The nodes of plain values are here: scalars, literals and enums, and data of any kind. The others are in `containers`,
`unions` and `classes`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import isinf
from typing import TYPE_CHECKING, Any, cast

import msgspec
from attrs import field, frozen

from .problems import INVALID, KINDS, Problems, as_array, as_integer, as_object, kind_of, shown, typed

if TYPE_CHECKING:
    from .schemas import Definitions

__all__ = ["ANYTHING", "SCALARS", "Choice", "Described", "Node", "Scalar", "Schema", "with_floats"]

Schema = dict[str, Any]

_NUMBERS = frozenset(("integer", "number"))


class Node(ABC):
    """One type within a shape.

    Attributes:
        kinds: JSON's kinds of the type's values.
    """

    kinds: frozenset[str]

    @property
    def accepted(self) -> frozenset[str]:
        """The kinds of the data that `read` may take: those of the type's values, and for a Decimal numbers, too."""
        return self.kinds

    @abstractmethod
    def read(self, value: Any, problems: Problems) -> Any:
        """Return plain data as the type. If it does not fit, note the problems and return anything."""

    @abstractmethod
    def schema(self, definitions: Definitions) -> Schema:
        """Return the JSON schema. The definitions of classes go to `definitions`."""


@frozen
class Described(Node):
    """A type with further words in its schema, such as a description."""

    of: Node
    words: Mapping[str, Any]

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """The kinds of the type."""
        return self.of.kinds

    @property
    def accepted(self) -> frozenset[str]:
        """The kinds that the type accepts."""
        return self.of.accepted

    def read(self, value: Any, problems: Problems) -> Any:
        """Read as the type itself does."""
        return self.of.read(value, problems)

    def schema(self, definitions: Definitions) -> Schema:
        """Return the schema with the further words. Descriptions from inside and outside are joined."""
        return with_words(self.of.schema(definitions), self.words)


def with_words(schema: Schema, words: Mapping[str, Any]) -> Schema:
    """Return the schema with further keywords. A new description goes before the existing one."""
    merged = {**schema, **words}
    if "description" in words and "description" in schema:
        merged["description"] = f"{words['description']}\n\n{schema['description']}"
    return merged


@frozen
class Scalar(Node):
    """A plain value.

    Attributes:
        type: the Python type.
        kind: JSON's kind of its values.
        words: its JSON schema.
        what: the name of the type for errors.
    """

    type: type
    kind: str
    words: Schema
    what: str
    kinds: frozenset[str] = field(init=False)
    accepted: frozenset[str] = field(init=False)  # pyright: ignore[reportIncompatibleMethodOverride]

    @kinds.default  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUntypedFunctionDecorator]
    def _of_kind(self) -> frozenset[str]:
        return frozenset((self.kind,))

    @accepted.default  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUntypedFunctionDecorator]
    def _with_numbers(self) -> frozenset[str]:
        return self.kinds | _NUMBERS if self.type in (float, decimal.Decimal) else self.kinds

    def read(self, value: Any, problems: Problems) -> Any:
        """Convert the value as msgspec does in its strict mode. An integer may be written as 3.0."""
        if type(value) is self.type:
            return value
        if self.type is int and (whole := as_integer(value)) is not None:
            return whole
        if kind_of(value) not in self.accepted:
            return problems.expected(self.what, value)
        try:
            read: Any = msgspec.convert(value, cast("Any", self.type))
            return problems.add("the number is too large") if self.type is float and isinf(read) else read
        except msgspec.ValidationError:
            return problems.add(f"expected {self.what}, but got {shown(value)}")

    def schema(self, definitions: Definitions) -> Schema:
        """Return the words of the scalar."""
        return dict(self.words)


def _text(kind: type, what: str, **words: Any) -> Scalar:
    return Scalar(kind, "string", {"type": "string", **words}, what)


SCALARS: Mapping[type, Scalar] = {
    each.type: each
    for each in (
        Scalar(type(None), "null", {"type": "null"}, "null"),
        Scalar(bool, "boolean", {"type": "boolean"}, "a boolean"),
        Scalar(int, "integer", {"type": "integer"}, "an integer"),
        Scalar(float, "number", {"type": "number"}, "a number"),
        _text(str, "a string"),
        _text(bytes, "a string in base64", contentEncoding="base64"),
        _text(bytearray, "a string in base64", contentEncoding="base64"),
        _text(dt.datetime, "a date and time such as '2024-05-06T07:08:09Z'", format="date-time"),
        _text(dt.date, "a date such as '2024-05-06'", format="date"),
        _text(dt.time, "a time such as '07:08:09'", format="time"),
        _text(dt.timedelta, "a duration such as 'PT1H30M'", format="duration"),
        _text(uuid.UUID, "a UUID", format="uuid"),
        _text(decimal.Decimal, "a decimal number such as '1.50'", format="decimal", pattern=r"^-?[0-9]+(\.[0-9]+)?$"),
    )
}
"""The nodes of the plain types."""


@frozen
class Choice(Node):
    """One of a few plain values: a Literal or an enum.

    Attributes:
        values: the decoded value for each plain value and its type, because True equals 1.
        words: the other keywords of the schema.
    """

    values: Mapping[tuple[type, object], Any]
    words: Mapping[str, Any] = field(factory=dict[str, Any])

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """The kinds of the values."""
        return frozenset(kind_of(value) for _, value in self.values)

    def read(self, value: Any, problems: Problems) -> Any:
        """Return the literal or the enum's member."""
        try:
            found = self.values.get(typed(value), INVALID)
        except TypeError:  # a list or a dict
            found = INVALID
        if found is INVALID and (whole := as_integer(value)) is not None:
            found = self.values.get(typed(whole), INVALID)
        if found is INVALID:
            kind = kind_of(value)
            got = KINDS[kind] if kind in ("array", "object") else shown(value)
            return problems.add(f"expected {self.shown()}, but got {got}")
        return found

    def shown(self) -> str:
        """Return the values, in words for an error."""
        *others, last = (msgspec.json.encode(value).decode() for _, value in self.values)
        return f"one of {', '.join(others)} and {last}" if others else last

    def schema(self, definitions: Definitions) -> Schema:
        """Return an ``enum`` for each kind of values."""
        by_kind: dict[str, list[Any]] = {}
        for _, value in self.values:
            by_kind.setdefault(kind_of(value), []).append(value)
        enums = [_enum(kind, values) for kind, values in by_kind.items()]
        return with_words(enums[0] if len(enums) == 1 else {"anyOf": enums}, self.words)


def _enum(kind: str, values: Sequence[Any]) -> Schema:
    is_whole = kind == "null" or (kind == "boolean" and len(values) > 1)
    return {"type": kind} if is_whole else {"type": kind, "enum": [*values]}


@frozen
class _Anything(Node):
    """Plain data of any kind."""

    kinds: frozenset[str] = frozenset(KINDS)

    def read(self, value: Any, problems: Problems) -> Any:
        """Return the data."""
        return with_floats(value, problems)

    def schema(self, definitions: Definitions) -> Schema:
        """Return the schema that everything fits."""
        return {}


def with_floats(value: Any, problems: Problems) -> Any:
    """Return plain data with floats in place of Decimals."""
    if not problems.has_decimals:
        return value
    if isinstance(value, decimal.Decimal):
        number = float(value)
        return problems.add("the number is too large") if isinf(number) else number
    if (items := as_array(value)) is not None:
        return [with_floats(item, problems) for item in items]
    if (members := as_object(value)) is not None:
        return {key: with_floats(item, problems) for key, item in members.items()}
    return value


ANYTHING: Node = _Anything()
