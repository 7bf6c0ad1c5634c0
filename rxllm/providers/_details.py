"""`Details`: the reasoning that OpenRouter sends beside its text, and wants back unchanged.

https://openrouter.ai/docs/use-cases/reasoning-tokens: the pieces of a stream are joined by their index and type, and
go into the assistant's message as ``reasoning_details``.
"""

from __future__ import annotations

from typing import Any

from ..bounds import PARTS
from ..errors import ProtocolError
from ..values.parts import RawPart
from ._documents import list_of, object_of

__all__ = ["Details"]

_TEXTS = ("text", "summary", "data")  # which come in pieces


class Details:
    """The details of one answer."""

    __slots__ = ("_items", "_maker", "_texts")

    def __init__(self, maker: str) -> None:
        self._maker = maker
        self._items: dict[tuple[object, object], dict[str, Any]] = {}
        self._texts: dict[tuple[tuple[object, object], str], list[str]] = {}

    def add(self, details: object) -> None:
        """Take the details of one frame.

        Raises:
            ProtocolError: there are too many.
        """
        for item in map(object_of, list_of(details)):
            index = item.get("index")
            key = (index if index is not None else item.get("id"), item.get("type"))
            known = self._items.setdefault(key, {})
            if len(self._items) > PARTS:
                raise ProtocolError(f"The answer has more than {PARTS:,} details of its reasoning.")
            for name, value in item.items():
                if name in _TEXTS and isinstance(value, str):
                    self._texts.setdefault((key, name), []).append(value)
                    known[name] = ""  # keeps its place
                elif value is not None or name not in known:
                    known[name] = value

    def part(self) -> RawPart:
        """All of them, for their maker alone."""
        for (key, name), texts in self._texts.items():
            self._items[key][name] = "".join(texts)
        return RawPart(self._maker, {"reasoning_details": list(self._items.values())})
