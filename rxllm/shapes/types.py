"""`node_of`: the node for a Python type."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, cast, get_args, get_origin

import typing_extensions
from attrs import define

from ..misuse import MisuseError, shown
from .classes import ClassNode, Field, declared_by, description_of, tag_of
from .constraints import annotated
from .containers import DictNode, ListNode, TupleNode
from .nodes import ANYTHING, SCALARS, Choice, Node, Schema
from .problems import Problems, typed
from .schemas import Definitions
from .spelling import spelled
from .unions import UnionNode, check_apart

__all__ = ["node_of"]

_LISTS: Mapping[Any, Callable[[list[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WRAPPERS = (typing.Final, typing.ClassVar, typing_extensions.ReadOnly)
_ALIASES = tuple({getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType), typing_extensions.TypeAliasType})


@define(eq=False)
class _Alias(Node):
    """The node of a type alias, which may be recursive."""

    name: str
    key: Any
    target: Node = ANYTHING

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        return self.target.kinds

    @property
    def accepted(self) -> frozenset[str]:
        return self.target.accepted

    def read(self, value: Any, problems: Problems) -> Any:
        return self.target.read(value, problems)

    def schema(self, definitions: Definitions) -> Schema:
        return definitions.reference(self.key, self.name, lambda: self.target.schema(definitions))


def node_of(kind: Any) -> Node:
    """Return the node of a type.

    Raises:
        MisuseError: JSON cannot express the type, or the types of a union cannot be distinguished.
    """
    builder = _Builder()
    node = builder.node(kind)
    for union in builder.unions:
        check_apart(union)
    return node


class _Builder:
    """Makes the nodes of one shape. Each class and each alias gets one node, because it may contain itself."""

    def __init__(self) -> None:
        self.named: dict[Any, Node] = {}
        self.unions: list[UnionNode] = []
        self.place: list[str] = []

    def node(self, kind: Any) -> Node:
        """Return the node of a type."""
        if kind in (Any, object):
            return ANYTHING
        if kind is None:
            return SCALARS[type(None)]
        origin = get_origin(kind)
        if origin is typing.Annotated:
            inner, *metadata = get_args(kind)
            node = annotated(self.node(inner), metadata)
            return self._noted(node)
        if origin in _WRAPPERS:
            return self.node(get_args(kind)[0])
        if isinstance(kind, _ALIASES) or isinstance(origin, _ALIASES):
            return self._alias(kind, origin)
        if origin in (typing.Union, types.UnionType):
            return self._union(get_args(kind))
        if origin is Literal:
            return self._literal(get_args(kind))
        if isinstance(kind, typing.TypeVar):
            return self.node(_default_of(kind))
        if hasattr(kind, "__supertype__"):  # a NewType
            return self.node(kind.__supertype__)
        return self._class(kind, origin or kind, get_args(kind))

    def _noted(self, node: Node) -> Node:
        if isinstance(node, UnionNode):
            self.unions.append(node)
        return node

    def _alias(self, kind: Any, origin: Any) -> Node:
        if kind not in self.named:
            alias = origin or kind
            node = self.named[kind] = _Alias(alias.__name__, kind)
            bindings = dict(zip(alias.__type_params__, get_args(kind), strict=False))
            node.target = self.node(_substituted(alias.__value__, bindings))
        return self.named[kind]

    def _union(self, kinds: tuple[Any, ...]) -> Node:
        members: list[Node] = []
        for kind in kinds:
            node = self.node(kind)
            members += node.members if isinstance(node, UnionNode) else [node]
        return self._noted(UnionNode(tuple(members)))

    def _literal(self, values: tuple[Any, ...]) -> Node:
        plain = [value.value if isinstance(value, enum.Enum) else value for value in values]
        for value in plain:
            if type(value) not in (str, int, bool, type(None)):
                raise self._error(f"Literal[{value!r:.60}]", "JSON has no such value")
        return Choice({typed(value): literal for value, literal in zip(plain, values, strict=True)})

    def _enum(self, kind: type[enum.Enum]) -> Node:
        values: dict[tuple[type, object], Any] = {}
        for member in kind:
            plain: object = member.value
            if not isinstance(plain, (str, int)) or isinstance(plain, bool):
                raise self._error(kind.__qualname__, f"its value {plain!r:.60} is neither a text nor a whole number")
            key = (str, str.__str__(plain)) if isinstance(plain, str) else (int, int(plain))
            values[key] = member
        if not values:
            raise self._error(kind.__qualname__, "it has no members")
        text = description_of(kind)
        return Choice(values, {"description": text} if text and text != "An enumeration." else {})

    def _class(self, kind: Any, origin: Any, arguments: tuple[Any, ...]) -> Node:
        if isinstance(kind, dict):
            raise self._error(
                shown(cast("object", kind)), "it is not a type, and JSON schemas are for response_format="
            )
        if not _is_hashable(kind):
            raise self._error(shown(kind), "it is not a type")
        if origin in SCALARS:
            return SCALARS[origin]
        if origin is tuple:
            return self._tuple(kind, arguments)
        if origin in _LISTS:
            unique = _LISTS[origin] in (set, frozenset)
            return ListNode(self.node(arguments[0] if arguments else Any), _LISTS[origin], unique=unique)
        if origin in _DICTS:
            key, value = arguments or (str, Any)
            return DictNode(self._key(key), self.node(value))
        if not isinstance(origin, type):
            raise self._error(shown(kind), "it is not a type")
        if issubclass(cast("type[Any]", origin), enum.Enum):
            return self._enum(origin)
        return self._fields(kind, cast("Any", origin), arguments)

    def _fields(self, kind: Any, origin: Any, arguments: tuple[Any, ...]) -> Node:
        if hasattr(origin, "__get_pydantic_core_schema__") or hasattr(origin, "__pydantic_core_schema__"):
            return self._pydantic(kind)
        declared = declared_by(origin)
        if declared is None:
            raise self._error(getattr(origin, "__qualname__", shown(kind)), "JSON has no such value")
        if kind in self.named:
            return self.named[kind]
        node = ClassNode(kind, spelled(kind), description_of(origin), origin, tag_of(origin))
        self.named[kind] = node
        bindings = _bindings(origin, arguments)
        fields: list[Field] = []
        self.place.append(origin.__name__)
        for each in declared:
            self.place.append(each.name)
            own = bindings.get(_owner(origin, each.attribute), {})
            fields.append(Field(each.name, each.argument, self.node(_substituted(each.type, own)), each.required))
            self.place.pop()
        self.place.pop()
        node.fields = tuple(fields)
        return node

    def _pydantic(self, kind: Any) -> Node:
        from .pydantic_models import pydantic_node  # needs pydantic

        if kind not in self.named:
            self.named[kind] = pydantic_node(kind)
        return self.named[kind]

    def _tuple(self, kind: Any, arguments: tuple[Any, ...]) -> Node:
        if kind in (tuple, typing.Tuple):  # noqa: UP006
            return ListNode(ANYTHING, tuple)
        if arguments[1:] == (...,):
            return ListNode(self.node(arguments[0]), tuple)
        return TupleNode(tuple(map(self.node, arguments)))

    def _key(self, kind: Any) -> Node:
        node = self.node(kind)
        if node is ANYTHING:
            return SCALARS[str]
        if [*node.kinds] != ["string"]:
            raise self._error(f"a dict with keys of the type {spelled(kind)}", "the keys of a JSON object are texts")
        return node

    def _error(self, what: str, why: str) -> MisuseError:
        place = f" (at {'.'.join(self.place[-2:])})" if self.place else ""
        return MisuseError(
            f"{what} can't be the shape of an answer{place}: {why}. Use an attrs class, a dataclass, a msgspec.Struct, "
            "a TypedDict, a NamedTuple, a pydantic model, or a list, dict, union or Literal."
        )


def _default_of(variable: Any) -> Any:
    """Return the type for a type variable without an argument."""
    default = getattr(variable, "__default__", None)
    if default is not None and default is not typing_extensions.NoDefault:
        return default
    return variable.__bound__ or (variable.__constraints__ and typing.Union[variable.__constraints__]) or Any  # noqa: UP007


def _is_hashable(kind: object) -> bool:
    return isinstance(kind, Hashable)


def _bindings(kind: Any, arguments: tuple[Any, ...]) -> dict[Any, dict[Any, Any]]:
    """Return the types of the type variables, for a generic class and for each of its generic bases."""
    own = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=False))
    bindings = {kind: own}
    bases: tuple[Any, ...] = kind.__dict__.get("__orig_bases__", ())
    for base in bases:
        origin = get_origin(base)
        if origin is not None and hasattr(origin, "__parameters__"):
            bindings |= _bindings(origin, tuple(_substituted(each, own) for each in get_args(base)))
    return bindings


def _owner(kind: Any, attribute: str) -> Any:
    """Return the class in which a field is annotated: the class itself, or one of its bases."""
    bases: tuple[Any, ...] = kind.__mro__
    return next((base for base in bases if attribute in inspect.get_annotations(base)), kind)


def _substituted(kind: Any, bindings: Mapping[Any, Any]) -> Any:
    """Return a type with types in place of its type variables."""
    if isinstance(kind, typing.TypeVar):
        return bindings.get(cast("Any", kind), kind)
    parameters = getattr(kind, "__parameters__", ())
    if not parameters or isinstance(kind, type):
        return kind
    return kind[tuple(bindings.get(each, _default_of(each)) for each in parameters)]
