"""Pickling of tools that decorate a function: in the function's module, the function's name is the tool."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from attrs import frozen

__all__ = ["by_name", "unpickled"]


@frozen
class _Decorated:
    """A function whose name in its module is a tool."""

    module: str
    name: str


def by_name(function: Callable[..., Any]) -> object:
    """Return the name of a function if this name is a tool of the function; else the function itself."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module and name and getattr(_found(module, name), "function", None) is function:
        return _Decorated(module, name)
    return function


def unpickled(kind: type[Any], fields: dict[str, Any]) -> Any:
    """Return a tool with these fields."""
    function = fields["function"]
    if isinstance(function, _Decorated):
        function = _found(function.module, function.name).function
    tool = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(tool, name, function if name == "function" else value)
    return tool


def _found(module: str, qualname: str) -> Any:
    """Return the object of this name in a module; None if there is none."""
    try:
        found: Any = importlib.import_module(module)
    except ImportError:
        return None
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found
