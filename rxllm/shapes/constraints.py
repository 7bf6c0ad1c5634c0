"""Constraints of types: those in `Annotated`, of msgspec, annotated_types or pydantic.

A constraint is sent to the model, as a word of the JSON schema or in the description, and checked when the answer is
decoded. An unknown constraint raises MisuseError.
"""

from __future__ import annotations

import datetime as dt
import decimal
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from ..misuse import MisuseError
from .annotations import facts_of
from .containers import DictNode, ListNode
from .nodes import Described, Node, Scalar, Schema, with_words
from .problems import Problems, shown
from .unions import UnionNode

if TYPE_CHECKING:
    from .schemas import Definitions

__all__ = ["annotated"]

_EXACT = decimal.Context(prec=2000, traps=[])
"""The quotient of any two floats has fewer digits."""

_NUMBERS = (int, float)
_ORDERED = (*_NUMBERS, decimal.Decimal, dt.date, dt.datetime, dt.time, dt.timedelta)


def _multiple(value: Any, of: Any) -> bool:
    """Return whether a number is a multiple of another, by their decimal digits: 19.99 is one of 0.01."""
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    number, step = (decimal.Decimal(each if isinstance(each, int) else str(each)) for each in (value, of))
    return _EXACT.remainder(number, step) == 0


def _has_zone(value: Any, wanted: object) -> bool:
    return (value.tzinfo is not None) is wanted


_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
    "multiple_of": _multiple,
    "pattern": lambda value, pattern: re.search(pattern, value) is not None,
    "min_length": lambda value, size: len(value) >= size,
    "max_length": lambda value, size: len(value) <= size,
    "tz": _has_zone,
}
_KEYWORDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
_PHRASES = {
    "ge": "at least {}",
    "gt": "greater than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "multiple_of": "a multiple of {}",
    "pattern": "matching the regular expression {}",
    "min_length": "at least {} {}",
    "max_length": "at most {} {}",
}
_NAIVE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?$"


@frozen
class _Constraint:
    """One limit of a type: a word of msgspec's, such as ``ge``, and its bound."""

    word: str
    bound: Any

    def phrase(self, noun: str) -> str:
        if self.word == "tz":
            return "with a time zone" if self.bound else "without a time zone"
        return _PHRASES[self.word].format(self.bound, noun)


@frozen
class _Constrained(Node):
    """A type with constraints."""

    of: Node
    constraints: tuple[_Constraint, ...]
    noun: str
    words: Schema

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        return self.of.kinds

    @property
    def accepted(self) -> frozenset[str]:
        return self.of.accepted

    def read(self, value: Any, problems: Problems) -> Any:
        before = problems.total
        result = self.of.read(value, problems)
        if problems.total == before:
            for each in self.constraints:
                if not _passes(each, result):
                    return problems.add(f"expected {each.phrase(self.noun)}, but got {shown(value)}")
        return result

    def schema(self, definitions: Definitions) -> Schema:
        schema = self.of.schema(definitions)
        if self.words.get("pattern") == _NAIVE:
            del schema["format"]  # which demands a time zone
        return with_words(schema, self.words)


def _passes(constraint: _Constraint, value: Any) -> bool:
    try:
        return _TESTS[constraint.word](value, constraint.bound)
    except (TypeError, decimal.InvalidOperation):  # a naive and an aware time, or a NaN
        return False


def annotated(node: Node, metadata: Iterable[object]) -> Node:
    """Return a node with the constraints of `Annotated`.

    Raises:
        MisuseError: a constraint is unknown, or the type can't have it.
    """
    words: Schema = {}
    constraints: list[_Constraint] = []
    for each in metadata:
        for word, value in facts_of(each):
            if word in _TESTS:
                constraints.append(_Constraint(word, value))
            elif word == "description":
                words["description"] = f"{words['description']}\n\n{value}" if "description" in words else value
            else:
                words[word] = value
    node = _constrained(node, tuple(constraints)) if constraints else node
    return Described(node, words) if words else node


def _constrained(node: Node, constraints: tuple[_Constraint, ...]) -> Node:
    if isinstance(node, Described):
        return Described(_constrained(node.of, constraints), node.words)
    if isinstance(node, UnionNode):
        return _constrained_members(node, constraints)
    inner = node.of if isinstance(node, _Constrained) else node
    noun = _noun(inner)
    words: Schema = {}
    phrases: list[str] = []
    for each in constraints:
        if not _suits(each.word, inner):
            raise MisuseError(f"{_type_name(inner)} can't have the constraint {each.word}={each.bound!r:.60}.")
        keyword = _keyword(each.word, inner)
        if each.word == "tz":
            words |= {} if each.bound else {"pattern": _NAIVE}
            phrases.append(each.phrase(noun))
        elif keyword is None or keyword in words:
            phrases.append(each.phrase(noun))
        else:
            words[keyword] = _plain(each.bound)
    if phrases:
        words["description"] = f"({', '.join(phrases)})"
    return _Constrained(node, constraints, noun, words)


def _constrained_members(union: UnionNode, constraints: tuple[_Constraint, ...]) -> Node:
    """Apply each constraint to the members that can have it, as in ``Annotated[int | None, Meta(ge=1)]``."""
    for each in constraints:
        if not any(_suits(each.word, member) for member in union.members):
            raise MisuseError(f"No type of this union can have the constraint {each.word}={each.bound!r:.60}.")
    members: list[Node] = []
    for member in union.members:
        own = tuple(each for each in constraints if _suits(each.word, member))
        members.append(_constrained(member, own) if own else member)
    return UnionNode(tuple(members))


def _suits(word: str, node: Node) -> bool:
    """Return whether a type can have this constraint."""
    if isinstance(node, (_Constrained, Described)):
        return _suits(word, node.of)
    if word in ("min_length", "max_length"):
        return isinstance(node, (ListNode, DictNode)) or _is_scalar(node, str, bytes, bytearray)
    if word == "pattern":
        return _is_scalar(node, str)
    if word == "tz":
        return _is_scalar(node, dt.datetime, dt.time)
    if word == "multiple_of":
        return _is_scalar(node, *_NUMBERS, decimal.Decimal)
    return _is_scalar(node, *_ORDERED)


def _is_scalar(node: Node, *kinds: type) -> bool:
    return isinstance(node, Scalar) and node.type in kinds


def _keyword(word: str, node: Node) -> str | None:
    """Return the keyword of JSON schema for a constraint, or None if only a description can express it."""
    if word.endswith("_length"):
        end = word[:3]
        if isinstance(node, ListNode):
            return f"{end}Items"
        if isinstance(node, DictNode):
            return f"{end}Properties"
        return f"{end}Length" if _is_scalar(node, str) else None
    return _KEYWORDS.get(word) if _is_scalar(node, str, *_NUMBERS) else None


def _noun(node: Node) -> str:
    if isinstance(node, ListNode):
        return "elements"
    if isinstance(node, DictNode):
        return "members"
    return "characters" if _is_scalar(node, str) else "bytes"


def _type_name(node: Node) -> str:
    if isinstance(node, Scalar):
        return node.type.__name__
    return type(node).__name__.removesuffix("Node").strip("_").lower()


def _plain(bound: Any) -> Any:
    return float(bound) if isinstance(bound, decimal.Decimal) else bound
