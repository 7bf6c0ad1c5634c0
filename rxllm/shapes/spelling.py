"""How types are spelled: `spelled` for people, `plain_name` and `unused_name` for providers."""

from __future__ import annotations

import re
from collections.abc import Container
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

__all__ = ["plain_name", "spelled", "unused_name"]


def spelled(kind: Any) -> str:
    """Return a type as a program would write it, without modules."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return spelled(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(map(spelled, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if arguments and isinstance(origin, type):
        return f"{origin.__name__}[{', '.join(map(spelled, arguments))}]"
    if kind is type(None):
        return "None"
    return "..." if kind is ... else str(getattr(kind, "__name__", kind))


def plain_name(name: str) -> str:
    """Return a name with letters, digits and underscores only, as providers require; at most 64 of them."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:64] or "answer"


def unused_name(name: str, taken: Container[str]) -> str:
    """Return the name; with a number, such as ``answer_2``, if it is taken."""
    unused, number = name, 2
    while unused in taken:
        unused, number = f"{name}_{number}", number + 1
    return unused
