"""Compares a JSON document with the types by which a vendor's SDK describes it: `misfits` names each difference.

It is stricter than pydantic, which ignores unknown keys and does not look into an Iterable. A key that the type lacks
is a misfit at every depth, a model's constant such as ``role`` must be present, and of an open enumeration
(``Literal["a", "b"] | Any``) only the named values count.
"""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typing_extensions
from attrs import field, frozen
from pydantic import BaseModel

__all__ = ["NOTHING", "Corrections", "Misfit", "misfits"]

Place = tuple[str | int, ...]
_NO_KEY = object()


@frozen
class Misfit:
    """A value that does not fit.

    Attributes:
        place: the keys and indices on the way to the value.
        what: what is wrong.
        constant: whether the value is a constant by which one class is told from another.
    """

    place: Place
    what: str
    constant: bool = False

    def __str__(self) -> str:
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.place)
        return f"body{path} {self.what}"


@frozen
class Corrections:
    """Facts of a vendor's server that its SDK's types leave out: what it demands, and what it takes.

    Attributes:
        required: the keys that a class must have, which its type calls optional.
        optional: the keys that a class may lack, which its type demands.
        further: the types of keys that a class lacks, or whose type is too wide.
        rules: a function of a document of the class, which returns what is wrong with it.
    """

    required: Mapping[type, Collection[str]] = field(factory=dict)
    optional: Mapping[type, Collection[str]] = field(factory=dict)
    further: Mapping[type, Mapping[str, Any]] = field(factory=dict)
    rules: Mapping[type, Callable[[Mapping[str, Any]], str | None]] = field(factory=dict)


NOTHING = Corrections()


def misfits(document: Any, kind: Any, corrections: Corrections = NOTHING) -> list[Misfit]:
    """Return what of a document does not fit the type."""
    return _Judge(corrections).misfits(document, kind, ())


@frozen
class _Judge:
    corrections: Corrections

    def misfits(self, document: Any, kind: Any, place: Place) -> list[Misfit]:
        kind, origin, options = _open(kind)
        if kind is Any or kind is object:
            return []
        if origin in (Union, types.UnionType):
            return self._of_union(document, options, place)
        if origin is Literal:
            fits = any(document == value and type(document) is type(value) for value in options)
            return [] if fits else [Misfit(place, f"is {document!r}, not one of {options}")]
        container: Any = origin or kind
        if not isinstance(container, type):
            raise TypeError(f"the type at {place} is none that the test can read: {kind!r}")
        if (fields := _fields(container)) is not None:
            return self._of_fields(document, container, fields, place)
        if issubclass(container, enum.Enum):
            fits = document in [each.value for each in container]
        elif issubclass(container, Mapping):
            if isinstance(document, dict):
                return self._of_items(document.items(), options[1] if options else Any, place)
            fits = False
        elif issubclass(container, Iterable) and not issubclass(container, (str, bytes)):
            if isinstance(document, (list, tuple)):
                return self._of_items(enumerate(document), options[0] if options else Any, place)
            fits = False
        else:
            fits = _is_scalar(document, container)
        return [] if fits else [Misfit(place, f"is {document!r}, no {container.__name__}")]

    def _of_union(self, document: Any, options: Sequence[Any], place: Place) -> list[Misfit]:
        options = _said(options)
        found: list[list[Misfit]] = []
        for option in options:
            told = self.misfits(document, option, place)
            if not told:
                return []
            found.append(told)

        def unlikely(told: list[Misfit]) -> tuple[bool, int, int, int]:
            """Whether the option is another kind of value, then how many constants of it, and how much, differ."""
            other = any(misfit.place == place and misfit.what.startswith("is ") for misfit in told)
            constants = sum(misfit.constant and len(misfit.place) <= len(place) + 1 for misfit in told)
            here = sum(len(misfit.place) <= len(place) + 1 for misfit in told)
            return other, constants, here, len(told)

        return min(found, key=unlikely)

    def _of_items(self, items: Iterable[tuple[Any, Any]], kind: Any, place: Place) -> list[Misfit]:
        return [misfit for key, item in items for misfit in self.misfits(item, kind, (*place, key))]

    def _of_fields(
        self, document: Any, kind: type, fields: Mapping[str, tuple[Any, bool]], place: Place
    ) -> list[Misfit]:
        if not isinstance(document, dict):
            return [Misfit(place, f"is {document!r}, no {kind.__name__}")]
        told: list[Misfit] = []
        needed = self.corrections.required.get(kind, ())
        optional = self.corrections.optional.get(kind, ())
        further = {
            name: (each, name in fields and fields[name][1])
            for name, each in self.corrections.further.get(kind, {}).items()
        }
        known = {**fields, **further}
        for name, (type_, is_required) in known.items():
            constant = _is_constant(type_)
            if name in document:
                here = self.misfits(document[name], type_, (*place, name))
                told += [Misfit(misfit.place, misfit.what, constant or misfit.constant) for misfit in here]
            elif (is_required and name not in optional) or name in needed:
                told.append(Misfit(place, f"lacks {name!r}", constant))
        told += [Misfit(place, f"has {name!r}, which {kind.__name__} lacks") for name in document if name not in known]
        rule = self.corrections.rules.get(kind)
        wrong = rule(document) if rule else None
        return [*told, *([Misfit(place, wrong)] if wrong else [])]


def _said(options: Sequence[Any]) -> Sequence[Any]:
    """The options that say something: what an SDK adds for values of the future says nothing."""
    if any(_open(option)[1] is Literal for option in options):
        options = [option for option in options if option is not Any and "Unrecognized" not in str(option)]
    kinds = [_open(option)[1] or _open(option)[0] for option in options]
    if any(isinstance(kind, type) and _fields(kind) for kind in kinds):
        options = [option for option, kind in zip(options, kinds, strict=True) if not _says_nothing(kind)]
    return options


def _says_nothing(kind: Any) -> bool:
    return kind is Mapping or getattr(kind, "__name__", "").startswith(("Unknown", "Unset"))


def _open(kind: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    """The type without its wrappings, its generic class and its arguments."""
    while True:
        origin = get_origin(kind)
        if origin in (Annotated, typing.Required, typing.NotRequired, typing_extensions.ReadOnly):
            kind = get_args(kind)[0]
        elif isinstance(kind, typing_extensions.TypeAliasType):
            kind = kind.__value__
        elif isinstance(origin, typing_extensions.TypeAliasType):  # a generic alias, such as Nullable[T]
            kind = origin.__value__[get_args(kind)]
        else:
            return kind, origin, get_args(kind)


def _is_constant(kind: Any) -> bool:
    kind, origin, options = _open(kind)
    if origin in (Union, types.UnionType):
        options = tuple(option for option in options if option is not type(None))
        return len(options) == 1 and _is_constant(options[0])
    return origin is Literal and len(options) == 1 and isinstance(options[0], str)


@functools.cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]] | None:
    """The type of each key of a TypedDict or a pydantic model, and whether it is required."""
    if typing_extensions.is_typeddict(kind):
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
        return {name: (hint, _is_required(kind, name, hint)) for name, hint in hints.items()}
    if issubclass(kind, BaseModel):
        kind.model_rebuild()
        # The default of a constant is for programs: in JSON it must be there.
        return {
            each.serialization_alias or each.alias or name: (
                each.annotation,
                each.is_required() or _is_constant(each.annotation),
            )
            for name, each in kind.model_fields.items()
        }
    return None


def _is_required(kind: Any, name: str, hint: Any) -> bool:
    """Whether a TypedDict demands a key; in a module of postponed annotations it does not know its own marks."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (typing.Required, typing.NotRequired):
        return get_origin(hint) is typing.Required
    return name in kind.__required_keys__


def _is_scalar(value: Any, kind: type) -> bool:
    if kind is type(None):
        return value is None
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, str if kind is bytes else kind)  # bytes are base64 in JSON
