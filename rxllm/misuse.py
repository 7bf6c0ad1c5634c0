"""`MisuseError`, and the validators that raise it. Every other module may import this one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, cast

from .terminal import printable

__all__ = ["MissingKey", "MisuseError", "check_numbers", "is_mapping", "is_text", "must_be", "shown"]


class MisuseError(TypeError):
    """The calling program used the library in a way that cannot work. The message says what to do instead.

    Attributes:
        request: the `Request` that a provider's protocol cannot carry; None if the error is about anything else.
    """

    request: object = None

    def __str__(self) -> str:
        """The message, with control characters escaped."""
        return printable(super().__str__())


class MissingKey(MisuseError):
    """A model has no API key in this process, so it can send no request at all."""


def must_be(expected: str, is_valid: Callable[[Any], bool]) -> Callable[[object, Any, Any], None]:
    """Return a validator for an attrs field. It raises MisuseError for a value that fails the check `is_valid`.

    Args:
        expected: the accepted values, in words for the error message.
        is_valid: the check.
    """

    def check(_: object, attribute: Any, value: Any) -> None:
        if not is_valid(value):
            raise MisuseError(f"{attribute.name} must be {expected}, not {shown(value)}.")

    return check


def shown(value: object) -> str:
    """Return the repr of a value for an error message, cut to 60 characters."""
    try:
        return f"{value!r:.60}"
    except Exception:  # an integer of thousands of digits raises ValueError
        return f"this {type(value).__name__}"


def is_text(value: object) -> bool:
    """Return whether the value is a str; a check for `must_be`."""
    return isinstance(value, str)


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether the value is a Mapping, such as a dict; a check for `must_be`."""
    return isinstance(value, Mapping)


def check_numbers(place: str, value: object) -> None:
    """Check that JSON can express all numbers in a value. Encoders write others as null, without an error.

    Raises:
        MisuseError: a number is infinite or not a number. The message has its place, which begins with `place`.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise MisuseError(f"{place} is {value}, which JSON cannot express. Pass a finite number or None.")
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            check_numbers(f"{place}[{key!r}]", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("Sequence[object]", value)):
            check_numbers(f"{place}[{index}]", item)
