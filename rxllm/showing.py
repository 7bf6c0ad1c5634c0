"""The reprs of values: one line of code, with the fields that differ from their defaults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Any, cast

import attrs
from reactivex.internal.utils import NotSet

__all__ = ["brief", "called", "made_by", "set_fields", "shown_call", "shown_code"]

_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, MethodDescriptorType, type)


def shown_code(value: object) -> str:
    """Return a value as code: a function by its name, an operator of reactivex as its call."""
    if isinstance(value, _FUNCTIONS):
        if made := made_by(value):
            return called(made[0], map(shown_code, made[1]))
        return value.__qualname__.rpartition("<locals>.")[2]
    if isinstance(value, partial):
        return called("partial", map(shown_code, (value.func, *value.args)))
    if type(value) is tuple:
        items = cast("tuple[object, ...]", value)
        return f"({', '.join(map(shown_code, items))}{',' if len(items) == 1 else ''})"
    return repr(value)


def made_by(operator: object) -> tuple[str, list[object]] | None:
    """Return the name and the arguments of the call that made an operator of reactivex; None for anything else."""
    module = getattr(operator, "__module__", None)
    names: tuple[str, ...] = getattr(getattr(operator, "__code__", None), "co_freevars", ())
    inner: dict[str, Any] = dict(zip(names, _cells(operator), strict=False))
    if module == "reactivex.pipe" and "operators" in inner:  # also of ops.switch_map and ops.concat_map
        return "compose", [*inner["operators"]]
    if module == "reactivex.internal.curry" and "fun" in inner:
        arguments = [each for each in inner.get("args", ()) if each is not NotSet]
        return f"ops.{str(inner['fun'].__name__).strip('_')}", arguments
    return None


def _cells(function: object) -> Iterator[object]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is not set yet
            yield None


def called(name: str, arguments: Iterable[str]) -> str:
    """Return a call as code."""
    return f"{name}({', '.join(arguments)})"


def shown_call(name: str, arguments: Iterable[str], value: Any) -> str:
    """Return the call that creates a pipeline or a combined model, with the config of its runs."""
    config = [f"{field.alias}={text}" for field, text in set_fields(value) if field.kw_only]
    return called(name, [*arguments, *config])


def _fields(kind: Any) -> tuple[attrs.Attribute[Any], ...]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(kind)
    return fields


def set_fields(value: Any) -> Iterator[tuple[attrs.Attribute[Any], str]]:
    """Yield the fields of an attrs object that differ from their defaults, each with its value as code.

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
    except Exception:  # some values, such as arrays, do not compare to a bool
        return False


def brief(self: Any) -> str:
    """Return the repr of an attrs object: the call that creates it, without the fields that have their defaults."""
    places = [field.name for field in _fields(type(self)) if field.init and not field.kw_only]
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
