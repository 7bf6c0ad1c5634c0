"""Immutable JSON values, which several readers of one answer can share.

`FrozenDict` and `FrozenList` are a dict and a list: they equal the plain ones, and encoders accept them.
``dict(data)`` and ``list(data)`` return mutable copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast

from .plain import plain

__all__ = ["FrozenDict", "FrozenList", "frozen_json"]


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError("Other readers share this value, so it cannot be changed. Change a copy, as in dict(data).")


class FrozenDict(dict[str, Any]):
    """An immutable dict."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore by the constructor. By default, pickle and deepcopy fill the object item by item, which raises."""
        return FrozenDict, (dict(self),)


class FrozenList(list[Any]):
    """An immutable list."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore by the constructor. By default, pickle and deepcopy fill the object item by item, which raises."""
        return FrozenList, (list(self),)


_AS_THEY_ARE = frozenset((str, int, float, bool, type(None), FrozenDict, FrozenList))
_put_key, _put_item = dict[Any, Any].__setitem__, list[Any].__setitem__


def frozen_json(value: Any) -> Any:
    """Return the value with all its dicts and lists frozen, and with plain texts and numbers."""
    kind: type = type(cast("object", value))
    if kind in _AS_THEY_ARE:
        return value
    if kind is dict or isinstance(value, Mapping):
        # The values of JSON are frozen in place, because most of them need no change, and an answer can have many.
        frozen = FrozenDict(cast("Mapping[Any, Any]", value))
        for key, item in cast("Mapping[Any, Any]", value).items():
            if type(item) not in _AS_THEY_ARE:
                _put_key(frozen, key, frozen_json(item))
        return frozen
    if kind is list:
        items = FrozenList(value)
        for place, item in enumerate(value):
            if type(item) not in _AS_THEY_ARE:
                _put_item(items, place, frozen_json(item))
        return items
    if kind is tuple:
        return tuple(map(frozen_json, value))
    if kind is bytearray:
        return bytes(value)
    return frozenset(cast("set[object]", value)) if kind is set else plain(value)
