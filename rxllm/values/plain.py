"""`plain`: texts and numbers without a class of their own.

`markupsafe.Markup`, Django's `SafeString`, BeautifulSoup's `NavigableString`, `numpy.str_` and `numpy.float64` are
texts and numbers, too. JSON encoders refuse them, and some keep a whole document alive.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec

__all__ = ["encodable", "plain"]

T = TypeVar("T")

_PLAIN = frozenset((str, int, float, bool, type(None)))


def plain(value: T) -> T:
    """Return a text or a number of a subclass as a `str`, `int` or `float`. Other values stay as they are."""
    item: Any = value
    if type(item) in _PLAIN:
        return value
    if isinstance(item, str):
        return cast("T", str.__str__(item))  # not str(): that of an Enum is its name
    if isinstance(item, (int, float)):
        return cast("T", int(item) if isinstance(item, int) else float(item))
    return value


def encodable(value: object) -> Any:
    """Return what an encoder of msgspec writes for a value of a class that it does not know.

    A model of pydantic becomes plain data, with the names that its JSON schema has; a ``msgspec.Raw`` is JSON.

    Raises:
        TypeError: JSON has no such value.
    """
    if (dump := getattr(type(value), "model_dump", None)) is not None:  # without an import of pydantic
        return dump(value, mode="json", by_alias=True)
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    found = plain(value)
    if found is value:
        raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")
    return found
