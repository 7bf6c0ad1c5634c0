"""Immutable JSON values, which several readers of one answer can share.

`FrozenDict` and `FrozenList` are a dict and a list: they equal the plain ones, and encoders accept them.
``dict(data)`` and ``list(data)`` return mutable copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast

__all__ = ["FrozenDict", "FrozenList", "frozen_json"]


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError("Other readers share this value, so it cannot be changed. Change a copy, as in dict(data).")


class FrozenDict(dict[str, Any]):
    """An immutable dict."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore by the constructor. By default, pickle and deepcopy fill the object item by item, which raises."""
        return FrozenDict, (dict(self),)


class FrozenList(list[Any]):
    """An immutable list."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore by the constructor. By default, pickle and deepcopy fill the object item by item, which raises."""
        return FrozenList, (list(self),)


def frozen_json(value: Any) -> Any:
    """Return the value with all its dicts and lists frozen. Other objects stay as they are."""
    kind: type = type(cast("object", value))
    if kind is FrozenDict or kind is FrozenList or kind is str:
        return value
    if isinstance(value, Mapping):
        items = cast("dict[Any, Any]", value).items()
        return FrozenDict({key: frozen_json(item) for key, item in items})
    if kind is list:
        return FrozenList(map(frozen_json, value))
    if kind is tuple:
        return tuple(map(frozen_json, value))
    if kind is bytearray:
        return bytes(value)
    return frozenset(cast("set[object]", value)) if kind is set else value
