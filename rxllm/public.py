"""`Public`: a metaclass, so that `dir` and `help` list only the public API of rxllm's classes.

attrs stores many private attributes in a class, and `help` would show them all. `dir` and `help` ask the metaclass for
the names to list.
"""

from __future__ import annotations

from abc import ABCMeta
from typing import TYPE_CHECKING

from typing_extensions import Protocol

__all__ = ["Public", "PublicABC"]

_CALLED = {"__init__", "__call__", "__add__", "__bool__", "__iter__", "__next__"} | {
    *("__enter__", "__exit__", "__aiter__", "__anext__", "__aenter__", "__aexit__")
}
"""The methods with two underscores that programs call by Python's syntax."""


class Public(type):
    """The metaclass of rxllm's value classes. It costs nothing when objects are created or read."""

    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if name in _CALLED or not name.startswith("__")]


if TYPE_CHECKING:
    _ProtocolMeta = ABCMeta
else:
    _ProtocolMeta = type(Protocol)


class PublicABC(Public, _ProtocolMeta):
    """`Public` for abstract classes, and a metaclass of protocols, so that a model may also implement a protocol."""

    __instancecheck__ = ABCMeta.__instancecheck__  # that of protocols is slower
    __subclasscheck__ = ABCMeta.__subclasscheck__
