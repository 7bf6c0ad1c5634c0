"""Calls of tools out of the fragments that OpenAI's chat protocol, and the many servers compatible with it, send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..values.parts import ToolCallPart
from ._documents import count, json_of, object_of, text_of

__all__ = ["Calls"]


class _Call:
    """A call that fragments are still added to, and what they have said as long as it is held back."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int) -> None:
        self.id = self.name = ""
        self.index = index
        self.arguments: list[str] = []

    def is_another(self, identity: str, name: str, arguments: str, *, by_index: bool) -> bool:
        """Whether a fragment that came for this call opens another one, though its index is the same."""
        if not name:
            return False
        if identity and self.id:
            return identity != self.id
        if not self.name:
            return False
        if name != self.name and (identity or not by_index):
            return True
        # Some gateways give neither ids nor indices of their own to calls that they send whole.
        new = name != self.name or (bool(arguments) and not identity and not self.id)
        return new and bool(object_of(json_of("".join(self.arguments).encode())))

    def part(self) -> ToolCallPart:
        return ToolCallPart(self.id, self.name, "".join(self.arguments), self.index)


class Calls:
    """The calls of one answer, numbered in the order in which they were opened.

    A call whose id or name comes late is held back until both are known, and so are the calls after it; where a server
    never sends both, until the answer ends.
    """

    __slots__ = ("_held", "_known", "_opened", "_places")

    def __init__(self) -> None:
        self._places: dict[int, _Call] = {}
        self._known: dict[str, _Call] = {}  # by their ids
        self._held: list[_Call] = []  # those of which nothing was emitted, in their order
        self._opened = 0

    def add(self, position: int, call: dict[str, Any]) -> Sequence[ToolCallPart]:
        """What a fragment adds to a call that was emitted. What opens one, and what comes before that, is held back.

        The first id and name of a call stay. Novita repeats both in each fragment, Alibaba sends an empty id; Mistral
        omits the index, and Gemini gives 0 to all calls, so that a new id with a name opens a new call even there.
        """
        function = object_of(call.get("function") or call.get("custom"))
        arguments = function.get("arguments", function.get("input"))
        if not isinstance(arguments, str):  # Mistral may send an object
            arguments = "" if arguments is None else msgspec.json.encode(arguments).decode()
        identity, name = text_of(call.get("id")), text_of(function.get("name"))
        index = count(call, "index")
        place = position if index is None else index
        known = self._known.get(identity) if index is None else None
        known = known or self._places.get(place)
        if known is None or known.is_another(identity, name, arguments, by_index=index is not None):
            known = self._places[place] = _Call(self._opened)
            self._held.append(known)
            self._opened += 1
        if known not in self._held:
            return [ToolCallPart("", "", arguments, known.index)] if arguments else []
        known.id = known.id or identity
        if known.id:
            self._known[known.id] = known
        known.name = known.name or name
        known.arguments.append(arguments)
        return []

    def released(self, *, everything: bool) -> Sequence[ToolCallPart]:
        """The calls that need not be held back any more, in their order."""
        ready = 0
        while ready < len(self._held) and (everything or (self._held[ready].id and self._held[ready].name)):
            ready += 1
        released, self._held = self._held[:ready], self._held[ready:]
        return [call.part() for call in released if call.id or call.name or any(call.arguments)]  # some are but places
