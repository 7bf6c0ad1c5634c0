"""Converts values to JSON that is equal for equal values and differs for others; used for cache keys."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import hashlib
import math
import pathlib
import uuid
import weakref
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
import msgspec

from .values.plain import plain

__all__ = ["class_name", "digest", "exact"]

_WHOLE = 2**53  # up to this size a float represents every whole number
_LARGE = 2**63  # from this size on, an integer is written as a tagged hexadecimal text
_TEXTS = (
    dt.date,
    dt.time,
    dt.timedelta,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
)
_MARK = "\0"  # prefix of the keys that this module adds


def digest(value: object, special: Callable[[object], Any] = lambda value: None) -> str:
    """Return a digest that is the same for equal values in every process.

    Raises:
        TypeError: the value, or a value inside, has no exact JSON form.
    """
    return hashlib.sha256(msgspec.json.encode(exact(value, special), order="deterministic")).hexdigest()


def exact(value: Any, special: Callable[[object], Any] = lambda value: None) -> Any:
    """Return a value as JSON; a type that JSON lacks becomes an object with the type's name.

    Numbers, texts, lists and dicts follow JSON: 1.0 equals 1, a tuple is a list, and the key 1 is the key "1". An
    object becomes its class and its fields.

    Args:
        value: any value.
        special: returns a replacement for a value, or None to convert the value itself.

    Raises:
        TypeError: the value, or a value inside, has no exact JSON form. Its `repr` is not used, because a repr may omit
            differences.
    """
    kind: type = type(cast("object", value))
    if value is None or kind in (str, bool):
        return value
    if kind is int:
        return value if abs(value) < _LARGE else _tagged(kind, hex(value))
    if kind is float:
        if value.is_integer() and abs(value) <= _WHOLE:
            return int(value)
        return value if math.isfinite(value) else _tagged(kind, repr(value))
    if kind in (list, tuple):
        return [exact(item, special) for item in value]
    replacement = special(value)
    if replacement is not None:
        return _tagged(kind, replacement)
    if isinstance(value, Mapping):
        return _mapping(cast("Mapping[object, object]", value), special)
    return _tagged(kind, _object(value, special))


def _tagged(kind: type, value: Any) -> dict[str, Any]:
    return {_MARK: class_name(kind), f"{_MARK}is": value}


def _mapping(value: Mapping[object, object], special: Callable[[object], Any]) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, item in value.items():
        if type(key) is not str and type(key) is not int:
            raise TypeError(f"the keys of a dict must be str or int, not {type(key).__name__}")
        name = str(key)
        if name in items or name.startswith(_MARK):
            raise TypeError("a dict has two keys with the same JSON form, or a key that starts with a NUL character")
        items[name] = exact(item, special)
    return items


def _object(value: Any, special: Callable[[object], Any]) -> Any:
    kind: type = type(cast("object", value))
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(cast("bytes", value)).decode()
    if isinstance(value, (set, frozenset)):
        items = cast("set[object]", value)
        return sorted(msgspec.json.encode(exact(item, special), order="deterministic").decode() for item in items)
    if isinstance(value, _TEXTS):
        return [str(value), str(getattr(value, "tzinfo", None))]
    if isinstance(value, (list, tuple)):  # a subclass
        return [exact(item, special) for item in cast("list[object]", value)]
    if isinstance(value, (str, int, float)) and not getattr(value, "__dict__", None):  # a subclass
        return exact(plain(value), special)
    names = _fields(kind)
    if names is None:
        raise TypeError(
            f"a {kind.__name__} has no exact JSON form; use a plain value, attrs class, dataclass or msgspec.Struct"
        )
    return {name: exact(getattr(value, name), special) for name in (*names, *getattr(value, "__dict__", ()))}


def _fields(kind: type) -> list[str] | None:
    """Return the names of the fields that __eq__ compares; None if the class does not define them."""
    if attrs.has(kind):
        return [each.name for each in attrs.fields(kind) if each.eq]
    if dataclasses.is_dataclass(kind):
        return [each.name for each in dataclasses.fields(kind) if each.compare]
    if issubclass(kind, msgspec.Struct):
        return [*kind.__struct_fields__]
    return None


_local: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def class_name(kind: type) -> str:
    """Return the full name of a class.

    All classes that one function creates share a name. The name of such a class gets a random suffix, so it holds
    within this process only.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    if "<locals>" not in name:
        return name
    return f"{name}#{_local.setdefault(kind, uuid.uuid4().hex)}"
