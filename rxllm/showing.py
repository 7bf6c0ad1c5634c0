"""How values show themselves: on one line, and only what is set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Any, cast

import attrs
from reactivex.internal.utils import NotSet

__all__ = ["brief", "called", "set_fields", "shown_call", "shown_code"]

_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, MethodDescriptorType, type)


def shown_code(value: object) -> str:
    """A value as a program would name it: a function by its name, an operator of reactivex as its call."""
    if isinstance(value, _FUNCTIONS):
        names: tuple[str, ...] = getattr(getattr(value, "__code__", None), "co_freevars", ())
        inner: dict[str, Any] = dict(zip(names, _cells(value), strict=False))
        if getattr(value, "__module__", None) == "reactivex.internal.curry" and "fun" in inner:
            name = str(inner["fun"].__name__).strip("_")
            return called(f"ops.{name}", [shown_code(each) for each in inner.get("args", ()) if each is not NotSet])
        return value.__qualname__.rpartition("<locals>.")[2]
    if isinstance(value, partial):
        return called("partial", map(shown_code, (value.func, *value.args)))
    if type(value) is tuple:
        items = cast("tuple[object, ...]", value)
        return f"({', '.join(map(shown_code, items))}{',' if len(items) == 1 else ''})"
    return repr(value)


def _cells(function: object) -> Iterator[object]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is not set yet
            yield None


def called(name: str, arguments: Iterable[str]) -> str:
    """A call as code."""
    return f"{name}({', '.join(arguments)})"


def shown_call(name: str, arguments: Iterable[str], value: Any) -> str:
    """The call that makes a pipeline or a model of others, with the config of its runs."""
    config = [f"{field.alias}={text}" for field, text in set_fields(value) if field.kw_only]
    return called(name, [*arguments, *config])


def _fields(kind: Any) -> tuple[attrs.Attribute[Any], ...]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(kind)
    return fields


def set_fields(value: Any) -> Iterator[tuple[attrs.Attribute[Any], str]]:
    """The fields of an attrs object that differ from their defaults, each with its value as code.

    A field with ``metadata={"shown": False}`` is left out, and `brief` shows the fields of one with
    ``metadata={"inline": True}`` as if they were the object's own.
    """
    for field in _fields(type(value)):
        if field.repr is False or not field.metadata.get("shown", True):
            continue
        show: Any = field.repr if callable(field.repr) else shown_code
        if not _is_default(field, content := getattr(value, field.name)):
            yield field, str(show(content))


def _is_default(field: Any, content: object) -> bool:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # which the stubs call a function
        if default.takes_self:
            return False
        default = default.factory()
    try:
        convert: Any = field.converter
        default = default if convert is None else convert(default)
        return content is default or (type(content) is type(default) and bool(content == default))
    except Exception:  # whatever compares otherwise, such as an array
        return False


def brief(self: Any) -> str:
    """The repr of an attrs object: the call that makes it, without what is as if nobody had set it."""
    places = [field.name for field in _fields(type(self)) if not field.kw_only]
    placed: list[str] = []
    named: list[str] = []
    for field, content in set_fields(self):
        if field.metadata.get("inline"):
            named += (f"{inner.alias}={text}" for inner, text in set_fields(getattr(self, field.name)))
        elif [field.name] == places[len(placed) : len(placed) + 1]:
            placed.append(content)
        else:
            named.append(f"{field.alias}={content}")
    return called(type(self).__qualname__.rpartition("<locals>.")[2], [*placed, *named])
