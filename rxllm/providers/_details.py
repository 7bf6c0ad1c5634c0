"""`Details`: the ``reasoning_details`` of OpenRouter, which the next request must contain unchanged.

The pieces of a stream join by their index and type, and go into the assistant's message as ``reasoning_details``.
Source: https://openrouter.ai/docs/use-cases/reasoning-tokens
"""

from __future__ import annotations

from typing import Any

from ..bounds import PARTS
from ..errors import ProtocolError
from ..values.parts import RawPart
from ._documents import list_of, object_of

__all__ = ["Details"]

_TEXTS = ("text", "summary", "data")  # the fields that arrive in pieces


class Details:
    """The reasoning details of one answer."""

    __slots__ = ("_items", "_maker", "_texts")

    def __init__(self, maker: str) -> None:
        self._maker = maker
        self._items: dict[tuple[object, object], dict[str, Any]] = {}
        self._texts: dict[tuple[tuple[object, object], str], list[str]] = {}

    def add(self, details: object) -> None:
        """Add the details of one frame.

        Raises:
            ProtocolError: the answer has too many details.
        """
        for item in map(object_of, list_of(details)):
            index = item.get("index")
            key = (index if index is not None else item.get("id"), item.get("type"))
            joined = self._items.setdefault(key, {})
            if len(self._items) > PARTS:
                raise ProtocolError(f"The response has more than {PARTS:,} details of its reasoning.")
            for name, value in item.items():
                if name in _TEXTS and isinstance(value, str):
                    self._texts.setdefault((key, name), []).append(value)
                    joined[name] = ""  # reserves the position of the field
                elif value is not None or name not in joined:
                    joined[name] = value

    def part(self) -> RawPart:
        """Return all details as one part, for this provider only."""
        for (key, name), texts in self._texts.items():
            self._items[key][name] = "".join(texts)
        return RawPart(self._maker, {"reasoning_details": list(self._items.values())})
