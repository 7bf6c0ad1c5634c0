"""`Details`: reasoning that a server of the chat protocol requires back unchanged, in a field of its own.

OpenRouter sends ``reasoning_details``, and LiteLLM's proxy sends the ``thinking_blocks`` of Anthropic. The pieces of a
stream join by their index and type, and go into the assistant's message under the same name. GitHub Copilot's
``reasoning_opaque`` is one text. MiniMax sends its reasoning only in ``reasoning_details``, in pieces or, by its
documentation, each time with all the text before it. The text of other servers' details is in further fields, too, or
is not meant to be shown.
Source: https://openrouter.ai/docs/use-cases/reasoning-tokens, https://docs.litellm.ai/docs/reasoning_content,
https://platform.minimax.io/docs/api-reference/text-openai-api
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..bounds import PARTS
from ..errors import ProtocolError
from ..values.parts import RawPart
from ._documents import list_of, object_of, text_of

__all__ = ["DETAILS", "IN_DETAILS", "Details"]

DETAILS = ("reasoning_details", "thinking_blocks", "reasoning_opaque")
IN_DETAILS: Mapping[str, Any] = {"form": "details"}
"""The `ReasoningPart.extra` of reasoning whose text is that of its details, so that only the details go back."""
_TEXTS = ("text", "summary", "thinking", "data")  # the fields that arrive in pieces
_SHOWN = {"reasoning.text": "text", "reasoning.summary": "summary"}  # the types with readable text, and its field


class Details:
    """The details of the reasoning of one answer. `name` is their field."""

    __slots__ = ("_items", "_latest", "_maker", "_name", "_opaque", "_texts")

    def __init__(self, maker: str, name: str) -> None:
        self._maker = maker
        self._name = name
        self._opaque = ""  # the latest details that are one text
        self._items: dict[tuple[object, object], dict[str, Any]] = {}
        self._latest = -1  # the place of the latest item without an index and an id
        self._texts: dict[tuple[tuple[object, object], str], list[str]] = {}

    def add(self, details: object) -> str:
        """Add the details of one frame. Return the text that MiniMax's details add.

        Raises:
            ProtocolError: the answer has too many details.
        """
        self._opaque = text_of(details) or self._opaque
        added = ""
        for item in map(object_of, list_of(details)):
            key = self._key(item)
            is_shown = text_of(item.get("format")).startswith("MiniMax")
            joined = self._items.setdefault(key, {})
            if len(self._items) > PARTS:
                raise ProtocolError(f"The response has more than {PARTS:,} details of its reasoning.")
            for name, value in item.items():
                if name in _TEXTS and isinstance(value, str):
                    pieces = self._texts.setdefault((key, name), [])
                    piece = _end_of(value, pieces) if is_shown else value
                    pieces += [piece] if piece else []
                    joined[name] = ""  # reserves the position of the field
                    added += piece if is_shown and name == _SHOWN.get(text_of(item.get("type"))) else ""
                elif value is not None or name not in joined:
                    joined[name] = value
        return added

    def _key(self, item: dict[str, Any]) -> tuple[object, object]:
        """Return the place and the type of an item. Without an index, a signature or data ends the item before."""
        kind, index = item.get("type"), item.get("index")
        place = index if index is not None else item.get("id")
        if place is None:
            before = self._items.get((self._latest, kind), {})
            self._latest -= bool(before.get("signature")) or "data" in before
            place = self._latest
        return place, kind

    def part(self) -> RawPart:
        """Return all details as one part, for this provider only."""
        for (key, name), texts in self._texts.items():
            self._items[key][name] = "".join(texts)
        return RawPart(self._maker, {self._name: self._opaque or list(self._items.values())})


def _end_of(text: str, pieces: Sequence[str]) -> str:
    """Return what a text adds to the pieces before it: its end if it repeats them all, else the whole text."""
    if not pieces or not text.startswith(pieces[0]):  # most pieces need no joined text
        return text
    before = "".join(pieces)
    return text.removeprefix(before) if len(text) > len(before) or len(pieces) > 1 else text
