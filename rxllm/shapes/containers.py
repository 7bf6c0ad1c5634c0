"""The nodes of lists, tuples, sets and dicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .nodes import Node, Schema
from .problems import INVALID, Problems, as_array, as_object, unquoted

if TYPE_CHECKING:
    from .schemas import Definitions

__all__ = ["DictNode", "ListNode", "TupleNode"]

_ARRAY, _OBJECT = frozenset(("array",)), frozenset(("object",))


@frozen
class ListNode(Node):
    """A list, a set or a tuple of any length.

    Attributes:
        element: the node of the elements.
        build: makes the Python value of the list of elements.
        unique: whether no value comes twice.
    """

    element: Node
    build: Callable[[list[Any]], Any] = list
    unique: bool = False
    kinds: frozenset[str] = _ARRAY

    def read(self, value: Any, problems: Problems) -> Any:
        """Read all elements."""
        elements = as_array(value) or as_array(unquoted(value, problems))
        if elements is None:
            return problems.expected("an array", value)
        if problems.is_too_deep():
            return INVALID
        items: list[Any] = []
        read = self.element.read
        problems.depth += 1
        for index, each in enumerate(elements):
            before = problems.total
            items.append(read(each, problems))
            if problems.total > before:
                problems.within(index, before)
        problems.depth -= 1
        return _built(self.build, items, problems)

    def schema(self, definitions: Definitions) -> Schema:
        """Return the schema of an array."""
        items = self.element.schema(definitions)
        return {"type": "array", "items": items, **({"uniqueItems": True} if self.unique else {})}


@frozen
class TupleNode(Node):
    """A tuple whose elements have their own types."""

    elements: tuple[Node, ...]
    kinds: frozenset[str] = _ARRAY

    def read(self, value: Any, problems: Problems) -> Any:
        """Read the elements, of which none may be missing."""
        elements = as_array(value) or as_array(unquoted(value, problems))
        if elements is None:
            return problems.expected("an array", value)
        size = len(self.elements)
        if len(elements) != size:
            return problems.add(f"expected an array of {size} elements, but got {len(elements)}")
        if problems.is_too_deep():
            return INVALID
        items: list[Any] = []
        problems.depth += 1
        for index, (each, node) in enumerate(zip(elements, self.elements, strict=True)):
            before = problems.total
            items.append(node.read(each, problems))
            if problems.total > before:
                problems.within(index, before)
        problems.depth -= 1
        return tuple(items)

    def schema(self, definitions: Definitions) -> Schema:
        """Return the schema of an array with a schema for each place."""
        places = [element.schema(definitions) for element in self.elements]
        size = len(places)
        return {"type": "array", "prefixItems": places, "items": False, "minItems": size, "maxItems": size}


@frozen
class DictNode(Node):
    """A dict with any keys."""

    key: Node
    value: Node
    kinds: frozenset[str] = _OBJECT

    def read(self, value: Any, problems: Problems) -> Any:
        """Read all keys and all values."""
        given = as_object(value) or as_object(unquoted(value, problems))
        if given is None:
            return problems.expected("an object", value)
        if problems.is_too_deep():
            return INVALID
        members: dict[Any, Any] = {}
        problems.depth += 1
        for name, each in given.items():
            before = problems.total
            key = self.key.read(name, problems)
            member = self.value.read(each, problems)
            if problems.total > before:
                problems.within(name, before)
            else:
                members[key] = member
        problems.depth -= 1
        return members

    def schema(self, definitions: Definitions) -> Schema:
        """Return the schema of an open object."""
        key = {name: word for name, word in self.key.schema(definitions).items() if name != "type"}
        names = {"propertyNames": key} if key else {}
        return {"type": "object", "additionalProperties": self.value.schema(definitions), **names}


def _built(build: Callable[[list[Any]], Any], items: list[Any], problems: Problems) -> Any:
    """Make a set or a tuple of the elements, unless an element did not fit."""
    if build is list or problems.total:
        return items
    try:
        return build(items)
    except TypeError as error:  # the elements of a set can't be hashed
        return problems.add(f"the elements can't form a {getattr(build, '__name__', 'collection')}: {error}")
