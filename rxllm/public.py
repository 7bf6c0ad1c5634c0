"""What `dir` and `help` list of our classes: their public API.

attrs puts what it knows of a class into the class, where `help` would show walls of it. Python asks the class of a
class what to list, so our classes have one of their own.
"""

from __future__ import annotations

from abc import ABCMeta
from typing import TYPE_CHECKING

from typing_extensions import Protocol

__all__ = ["Public", "PublicABC"]

_CALLED = {"__init__", "__call__", "__add__", "__bool__", "__iter__", "__next__"} | {
    *("__enter__", "__exit__", "__aiter__", "__anext__", "__aenter__", "__aexit__")
}
"""The methods with two underscores that users call, by the syntax that they stand for."""


class Public(type):
    """The class of our values. Objects are made and looked at as quickly as those of any class."""

    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if name in _CALLED or not name.startswith("__")]


if TYPE_CHECKING:
    _ProtocolMeta = ABCMeta
else:
    _ProtocolMeta = type(Protocol)


class PublicABC(Public, _ProtocolMeta):
    """The same of abstract classes. It descends from the class of protocols, so that a model may also be of those."""

    __instancecheck__ = ABCMeta.__instancecheck__  # the one of protocols is slower
    __subclasscheck__ = ABCMeta.__subclasscheck__
