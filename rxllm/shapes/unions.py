"""The node of unions, and the check that the types of a union can be distinguished."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

from attrs import frozen

from ..misuse import MisuseError
from .nodes import Choice, Described, Node, Scalar, Schema
from .problems import KINDS, Problems, as_integer, kind_of, unquoted

if TYPE_CHECKING:
    from .schemas import Definitions

__all__ = ["Members", "ObjectLike", "UnionNode", "check_apart"]


@frozen
class Members:
    """The keys of the objects of a class.

    Attributes:
        required: the keys that are never missing.
        known: all keys; None if other keys are allowed.
        choices: for required keys with a few plain values, these values with their types.
    """

    required: frozenset[str]
    known: frozenset[str] | None
    choices: Mapping[str, frozenset[tuple[type, object]]]

    def fit(self, value: Mapping[str, Any]) -> bool:
        """Return whether an object may belong to the class, judged by its keys."""
        names = {name for name, member in value.items() if member is not None}
        return self.required <= value.keys() and (self.known is None or names <= self.known)

    def chosen(self, value: Mapping[str, Any]) -> bool:
        """Return whether an object has a value of the class at each key with choices."""
        return all(name in value and _key(value[name]) in values for name, values in self.choices.items())


def _key(value: object) -> tuple[type, object]:
    value = value if (whole := as_integer(value)) is None else whole
    return type(value), value if isinstance(value, (str, int, float, type(None))) else ""


class ObjectLike(Node):
    """A node whose values are objects with known keys."""

    @cached_property
    def members(self) -> Members:
        """The keys of these objects. They are cached, because a union looks them up for each value."""
        raise NotImplementedError


@frozen
class UnionNode(Node):
    """One of several types."""

    members: tuple[Node, ...]

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """The kinds of all members."""
        return frozenset[str]().union(*(member.kinds for member in self.members))

    @property
    def accepted(self) -> frozenset[str]:
        """The kinds that any member accepts."""
        return frozenset[str]().union(*(member.accepted for member in self.members))

    def read(self, value: Any, problems: Problems) -> Any:
        """Read as the member that the value fits."""
        kind = kind_of(value)
        kinds = {"integer", "number"} if kind == "integer" else {kind}
        fitting = [member for member in self.members if kinds & member.accepted]
        if not fitting:
            if type(value) is not int and (whole := as_integer(value)) is not None:
                return self.read(whole, problems)
            if (inner := unquoted(value, problems)) is not value:
                return self.read(inner, problems)
            return problems.expected(_listed(self.kinds), value)
        if len(fitting) > 1 and kind == "object":
            fitting = _narrowed(fitting, value)
        if len(fitting) > 1:
            fitting.sort(key=lambda member: (kinds.isdisjoint(member.kinds), _rank(member)))  # Decimals last
            return self._read_first(fitting, value, problems)
        return fitting[0].read(value, problems)

    def _read_first(self, members: list[Node], value: Any, problems: Problems) -> Any:
        """Decode as the first member that fits. If no member fits, report the problems of the closest member."""
        best: tuple[int, Node] | None = None
        for member in members:
            trial = Problems(has_decimals=problems.has_decimals)
            trial.depth = problems.depth
            result = member.read(value, trial)
            if not trial.total:
                return result
            if best is None or trial.total < best[0]:
                best = trial.total, member
        return best[1].read(value, problems) if best else None

    def schema(self, definitions: Definitions) -> Schema:
        """Return the schema of the alternatives."""
        return {"anyOf": [member.schema(definitions) for member in self.members]}


def _rank(node: Node) -> int:
    """Put literals and enums first, and integers before other numbers."""
    return 0 if isinstance(plain(node), Choice) else 2 if "number" in node.kinds else 1


def plain(node: Node) -> Node:
    """Return the node without its description."""
    return plain(node.of) if isinstance(node, Described) else node


def _narrowed(members: list[Node], value: Mapping[str, Any]) -> list[Node]:
    """Return the members that an object may belong to, judged by its choices, such as a tag, and by its keys."""
    looks = [(member, node.members) for member in members if isinstance(node := plain(member), ObjectLike)]
    if len(looks) < len(members):
        return members
    tagged = [(member, look) for member, look in looks if look.chosen(value)] or looks
    return [member for member, look in tagged if look.fit(value)] or [member for member, _ in tagged]


def check_apart(union: UnionNode) -> None:
    """Check that each value of a union belongs to one of its types.

    Raises:
        MisuseError: a JSON value may belong to two types.
    """
    for one, other in combinations(map(plain, union.members), 2):
        shared = one.kinds & other.kinds
        if shared and not _are_apart(one, other, shared):
            raise MisuseError(
                f"{_name(one)} and {_name(other)} can't be told apart in an answer: both are written as "
                f"{_listed(shared)}. Give each class a required field that the other lacks, or a required field such "
                "as kind: Literal['…']."
            )


def _are_apart(one: Node, other: Node, shared: frozenset[str]) -> bool:
    if isinstance(one, ObjectLike) and isinstance(other, ObjectLike):
        return [*shared] == ["object"] and _objects_are_apart(one.members, other.members)
    if isinstance(one, Choice) and isinstance(other, Choice):
        both = one.values.keys() & other.values.keys()
        return all(one.values[key] == other.values[key] for key in both)
    if isinstance(one, Choice):
        return _is_apart_from(one, other)
    return isinstance(other, Choice) and _is_apart_from(other, one)


def _is_apart_from(choice: Choice, other: Node) -> bool:
    """Return whether no other type has the values of a Literal or an enum."""
    for (_, value), meaning in choice.values.items():
        problems = Problems()
        read = other.read(value, problems)
        if not problems.total and not (type(read) is type(meaning) and read == meaning):
            return False
    return True


def _objects_are_apart(one: Members, other: Members) -> bool:
    if any(not one.choices[name] & other.choices[name] for name in one.choices.keys() & other.choices.keys()):
        return True
    return _lacks(other, one.required) or _lacks(one, other.required)


def _lacks(members: Members, names: frozenset[str]) -> bool:
    return members.known is not None and not names <= members.known


def _name(node: Node) -> str:
    if isinstance(node, Scalar):
        return node.type.__name__
    if isinstance(node, Choice):
        return node.shown()
    return getattr(node, "name", None) or type(node).__name__.removesuffix("Node").strip("_").lower()


def _listed(kinds: frozenset[str]) -> str:
    return " or ".join(KINDS[kind] for kind in KINDS if kind in kinds)
