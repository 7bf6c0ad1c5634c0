"""JSON values that nobody can change: what several readers of one answer share.

They are dicts and lists, equal to the plain ones, and encoders take them as such. ``dict(data)`` and ``list(data)``
make copies that can be changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast

__all__ = ["FrozenDict", "FrozenList", "frozen_json"]


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError("This value is shared with other readers and cannot be changed: change a copy, as in dict(data).")


class FrozenDict(dict[str, Any]):
    """A dict that refuses changes."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """As pickle and deepcopy make it again, which would fill it item by item."""
        return FrozenDict, (dict(self),)


class FrozenList(list[Any]):
    """A list that refuses changes."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        """As pickle and deepcopy make it again, which would fill it item by item."""
        return FrozenList, (list(self),)


def frozen_json(value: Any) -> Any:
    """The value, with all dicts and lists in it frozen; other objects stay what they are."""
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
