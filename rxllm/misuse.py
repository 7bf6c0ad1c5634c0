"""`MisuseError`, and the validators that raise it: the ground that everything else stands on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .terminal import printable

__all__ = ["MisuseError"]


class MisuseError(TypeError):
    """The library was called in a way that cannot work; the sentence says what to do instead."""

    def __str__(self) -> str:
        """The sentence, with control characters shown instead of sent."""
        return printable(super().__str__())


def must_be(what: str, good: Callable[[Any], bool]) -> Callable[[object, Any, Any], None]:
    """A validator of an attrs field: refuses what is not `good`, and says what it must be."""

    def check(_: object, attribute: Any, value: Any) -> None:
        if not good(value):
            raise MisuseError(f"{attribute.name} must be {what}, not {shown(value)}.")

    return check


def shown(value: object) -> str:
    """As much of a value as fits a sentence."""
    try:
        return f"{value!r:.60}"
    except Exception:  # an integer of thousands of digits has no repr
        return f"this {type(value).__name__}"


def is_text(value: object) -> bool:
    """For `must_be`."""
    return isinstance(value, str)
