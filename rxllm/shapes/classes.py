"""The node of classes with fields, and how attrs, dataclasses, msgspec and typing describe these fields."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import attrs
import msgspec
import typing_extensions
from attrs import define, frozen

from ..misuse import MisuseError
from .nodes import Choice, Node, Schema, with_words
from .problems import INVALID, Problems, as_object, typed, unquoted
from .unions import Members, ObjectLike, plain

if TYPE_CHECKING:
    from .schemas import Definitions

__all__ = ["ClassNode", "Declared", "Field", "declared_by", "description_of", "tag_of"]

_OBJECT = frozenset(("object",))


@frozen
class Field:
    """A field of a class.

    Attributes:
        name: the key in the JSON object.
        argument: the keyword of the constructor.
        node: the node of its type.
        required: whether it has no default.
    """

    name: str
    argument: str
    node: Node
    required: bool


@define(eq=False)
class ClassNode(ObjectLike):
    """A class with fields. Calling the class creates an object.

    Attributes:
        key: the class and its type arguments, which distinguish it from all other classes.
        name: its name.
        description: its docstring.
        build: makes an object of the fields.
        tag: the key that identifies the class in a union, with its value.
        fields: the fields; set after the node exists, because the class may be recursive.
    """

    key: Any
    name: str
    description: str
    build: Callable[..., Any]
    tag: tuple[str, Any] | None = None
    fields: tuple[Field, ...] = ()
    kinds = _OBJECT

    @cached_property
    def members(self) -> Members:
        """The keys of the fields."""
        choices: dict[str, frozenset[tuple[type, object]]] = {}
        for each in self.fields:
            node = plain(each.node)
            if each.required and isinstance(node, Choice):
                choices[each.name] = frozenset(node.values)
        tag = frozenset((self.tag[0],)) if self.tag else frozenset[str]()
        if self.tag:
            choices[self.tag[0]] = frozenset((typed(self.tag[1]),))
        required = frozenset(each.name for each in self.fields if each.required)
        return Members(required | tag, frozenset(each.name for each in self.fields) | tag, choices)

    def read(self, value: Any, problems: Problems) -> Any:
        """Read the fields, and call the class with them.

        A null for a field that has a default and can't be null stands for the default: in the strict modes of the
        vendors no field may be missing.
        """
        members = as_object(value) or as_object(unquoted(value, problems))
        if members is None:
            return problems.expected(f"an object ({self.name})", value)
        if problems.is_too_deep():
            return INVALID
        start = problems.total
        arguments: dict[str, Any] = {}
        problems.depth += 1
        seen = 0
        for each in self.fields:
            if each.name in members:
                seen += 1
                member = members[each.name]
                if member is None and not each.required and "null" not in each.node.kinds:
                    continue
                before = problems.total
                arguments[each.argument] = each.node.read(member, problems)
                if problems.total > before:
                    problems.within(each.name, before)
            elif each.required:
                problems.add(f"the field {each.name!r} is missing")
        problems.depth -= 1
        if seen < len(members) or self.tag:
            self._check_others(members, problems)
        if problems.total > start:
            return INVALID
        try:
            return self.build(**arguments)
        except Exception as error:  # a converter or a validator of the class may raise any exception
            return problems.add(f"{self.name} refuses these values: {type(error).__name__}: {error}")

    def _check_others(self, members: Mapping[str, Any], problems: Problems) -> None:
        """Record the unknown keys, and a wrong tag."""
        names = {each.name for each in self.fields}
        for name, member in members.items():
            if self.tag and name == self.tag[0]:
                if member != self.tag[1]:
                    problems.add(f"expected {self.tag[1]!r} at {name!r}, but got {member!r:.60}")
            elif name not in names:
                problems.add(f"there is no field {name!r:.60}")
        if self.tag and self.tag[0] not in members:
            problems.add(f"the field {self.tag[0]!r} is missing")

    def schema(self, definitions: Definitions) -> Schema:
        """Return a reference to the definition of the class."""
        return definitions.reference(self.key, self.name, lambda: self._definition(definitions))

    def _definition(self, definitions: Definitions) -> Schema:
        properties: dict[str, Schema] = {}
        required: list[str] = []
        if self.tag:
            name, value = self.tag
            properties[name] = Choice({typed(value): value}).schema(definitions)
            required.append(name)
        for each in self.fields:
            properties[each.name] = each.node.schema(definitions)
            if each.required:
                required.append(each.name)
        schema: Schema = {"type": "object", "properties": properties, "required": required}
        described = {"description": self.description} if self.description else {}
        return with_words({**schema, "additionalProperties": False}, described)


@frozen
class Declared:
    """A field as its library declares it.

    Attributes:
        attribute: the name of the field in its class.
        name: the key in the JSON object.
        argument: the keyword of the constructor.
        type: the annotation.
        required: whether it has no default.
    """

    attribute: str
    name: str
    argument: str
    type: Any
    required: bool


def declared_by(kind: Any) -> Iterator[Declared] | None:
    """Return the fields of a class, or None if the class declares none.

    Raises:
        MisuseError: the type of a field is missing or can't be found.
    """
    if issubclass(kind, msgspec.Struct):
        return _of_struct(kind)
    if attrs.has(kind):
        return _of_attrs(kind)
    if dataclasses.is_dataclass(kind):
        return _of_dataclass(kind)
    if typing_extensions.is_typeddict(kind):
        return _of_typed_dict(kind)
    if hasattr(kind, "_field_defaults"):
        return _of_named_tuple(kind)
    return None


def hints_of(kind: Any) -> Mapping[str, Any]:
    """Return the types of a class's annotations.

    Raises:
        MisuseError: a name in an annotation can't be found.
    """
    try:
        return typing_extensions.get_type_hints(kind, include_extras=True)
    except (NameError, AttributeError) as error:
        raise MisuseError(
            f"The annotations of {kind.__qualname__} can't be read: {error}. Define that type in a module, not in a "
            "function, and import it outside of TYPE_CHECKING."
        ) from None


def _of_struct(kind: type[msgspec.Struct]) -> Iterator[Declared]:
    hints = hints_of(kind)
    for each in msgspec.structs.fields(kind):
        yield Declared(each.name, each.encode_name, each.name, hints[each.name], each.required)


def _of_attrs(kind: Any) -> Iterator[Declared]:
    hints = hints_of(kind)
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(kind)
    for each in fields:
        if each.init:
            given = _taken_by(cast("Any", each).converter)
            annotation = given or hints.get(each.name, each.type)
            if annotation is None:
                raise MisuseError(f"{kind.__qualname__}.{each.name} has no type. Annotate the field.")
            alias = each.alias or each.name
            yield Declared(each.name, alias, alias, annotation, each.default is attrs.NOTHING)


def _taken_by(converter: Any) -> Any:
    """Return the type of a converter's argument, if the converter is a function with an annotation."""
    if converter is None:
        return None
    function = getattr(converter, "converter", converter)
    function = function.func if isinstance(function, partial) else function
    if not inspect.isroutine(function):
        return None
    try:
        parameters = inspect.signature(function).parameters
        hints = typing_extensions.get_type_hints(function, include_extras=True)
    except (ValueError, TypeError, NameError):
        return None
    return next((hints.get(name) for name in parameters), None)


def _of_dataclass(kind: Any) -> Iterator[Declared]:
    hints = hints_of(kind)
    for each in dataclasses.fields(kind):
        if each.init:
            default = each.default
            if type(default).__name__ == "FieldInfo":
                raise MisuseError(
                    f"{kind.__qualname__}.{each.name} = pydantic.Field(…) has no effect in a dataclass of the standard "
                    "library. Write Annotated[…, pydantic.Field(…)], or use pydantic.dataclasses.dataclass."
                )
            required = default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
            yield Declared(each.name, each.name, each.name, hints[each.name], required)
    names = {each.name for each in dataclasses.fields(kind)}
    for name in inspect.signature(kind).parameters:
        if name in kind.__dataclass_fields__ and name not in names:
            raise MisuseError(f"{kind.__qualname__}.{name} is an InitVar, which no answer can have.")


_REQUIRED = {typing.Required: True, typing.NotRequired: False}


def _of_typed_dict(kind: Any) -> Iterator[Declared]:
    for name, annotation in hints_of(kind).items():
        required = name in kind.__required_keys__
        inner = annotation
        origin = typing_extensions.get_origin(inner)
        while origin in (*_REQUIRED, typing_extensions.ReadOnly):
            required = _REQUIRED.get(origin, required)
            inner = typing_extensions.get_args(inner)[0]
            origin = typing_extensions.get_origin(inner)
        yield Declared(name, name, name, inner, required)


def _of_named_tuple(kind: Any) -> Iterator[Declared]:
    hints = hints_of(kind)
    for name in kind._fields:
        yield Declared(name, name, name, hints.get(name, Any), name not in kind._field_defaults)


def description_of(kind: Any) -> str:
    """Return the docstring that was written for a class, and not generated."""
    text: object = kind.__dict__.get("__doc__")
    if not isinstance(text, str):
        return ""
    generated = text.startswith(f"{kind.__name__}(") and text.endswith(")") and "\n" not in text
    return "" if generated else inspect.cleandoc(text)


def tag_of(kind: Any) -> tuple[str, Any] | None:
    """Return the tag of a msgspec Struct."""
    config = cast("Any", getattr(kind, "__struct_config__", None))
    return (config.tag_field, config.tag) if config is not None and config.tag is not None else None
