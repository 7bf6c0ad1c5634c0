"""Calls of tools out of the fragments that OpenAI's chat protocol, and the many servers compatible with it, send."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..bounds import CALLS, NAME_CHARACTERS
from ..errors import ProtocolError
from ..values.parts import ToolCallPart
from ._documents import count, identity_of, object_of, text_of

__all__ = ["Calls"]


_KNOWN_FIELDS = frozenset(("index", "id", "type", "function", "custom"))


class _Call:
    """A call that fragments are still added to, and what they have said as long as it is held back."""

    __slots__ = ("arguments", "extra", "id", "index", "is_held", "maker", "name", "shape")

    def __init__(self, index: int) -> None:
        self.id = self.name = ""
        self.index = index
        self.extra: dict[str, Any] | None = None
        self.maker: str | None = None
        self.is_held = True
        self.arguments: list[str] = []
        self.shape = _Shape()

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
        return new and self.shape.is_whole(self.arguments)

    def named(self, name: str) -> None:
        """Add a piece of the name: the next letters, all letters so far, or the whole name once more.

        Raises:
            ProtocolError: the name grows beyond any name.
        """
        if name == self.name or (self.name and self.arguments):
            return
        self.name = name if name.startswith(self.name) else self.name + name
        if len(self.name) > NAME_CHARACTERS:
            raise ProtocolError(f"The name of a tool call is longer than {NAME_CHARACTERS:,} characters.")

    def part(self) -> ToolCallPart:
        self.is_held = False
        arguments = "".join(self.arguments)
        return ToolCallPart(self.id, self.name, arguments, self.index, provider=self.maker, extra=self.extra)


_MARKS = r'(?s)\\.|["{}\[\]]'  # of JSON: what opens or closes


class _Shape:
    """Whether JSON text that comes in pieces is a whole object with a field. Each piece is looked at once."""

    __slots__ = ("_depth", "_has_field", "_in_string", "_read")

    def __init__(self) -> None:
        self._read = self._depth = 0
        self._in_string = self._has_field = False

    def is_whole(self, pieces: Sequence[str]) -> bool:
        for piece in pieces[self._read :]:
            for mark in re.findall(_MARKS, piece):
                if mark == '"':
                    self._in_string = not self._in_string
                    self._has_field = True
                elif len(mark) == 1 and not self._in_string:
                    self._depth += 1 if mark in "{[" else -1
        self._read = len(pieces)
        return self._has_field and self._depth == 0 and not self._in_string


def _whole_names(tools: Iterable[str]) -> frozenset[str]:
    """The names of tools that are not the beginning of another tool's name."""
    names = sorted(set(tools))
    return frozenset(name for name, after in zip(names, [*names[1:], ""], strict=False) if not after.startswith(name))


class Calls:
    """The calls of one answer, numbered in the order in which they were opened.

    A call is held back until its id and its name are known, and so are the calls after it; where a server never sends
    both, until the answer ends. A name that is sent in pieces is whole when it is the name of a tool that was offered,
    or when arguments come, of this call or a later one.
    """

    __slots__ = ("_active", "_held", "_known", "_maker", "_names", "_opened", "_places", "_tools")

    def __init__(self, tools: Iterable[str] = (), maker: str | None = None) -> None:
        self._tools = tools
        self._maker = maker
        self._names: frozenset[str] | None = None  # that are whole; computed once they are needed
        self._places: dict[int, _Call] = {}
        self._known: dict[str, _Call] = {}  # by their ids
        self._held: deque[_Call] = deque()  # those of which nothing was emitted, in their order
        self._opened = 0
        self._active = -1  # the latest call that has arguments

    def add(self, position: int, call: dict[str, Any]) -> Sequence[ToolCallPart]:
        """What a fragment adds to a call that was emitted. What opens one, and what comes before that, is held back.

        The first id and name of a call stay. Novita repeats both in each fragment, Alibaba sends an empty id; Mistral
        omits the index, and Gemini gives 0 to all calls, so that a new id with a name opens a new call even there.

        Raises:
            ProtocolError: there are too many calls.
        """
        function = object_of(call.get("function") or call.get("custom"))
        arguments = function.get("arguments", function.get("input"))
        if not isinstance(arguments, str):  # Mistral may send an object
            arguments = "" if arguments is None else msgspec.json.encode(arguments).decode()
        identity, name = identity_of(call.get("id")), text_of(function.get("name"))
        index = count(call, "index")
        place = position if index is None else index
        known = self._known.get(identity) if index is None else None
        known = known or self._places.get(place)
        if known is None or known.is_another(identity, name, arguments, by_index=index is not None):
            if self._opened >= CALLS:
                raise ProtocolError(f"The answer has more than {CALLS:,} tool calls.")
            known = self._places[place] = _Call(self._opened)
            self._held.append(known)
            self._opened += 1
        if arguments:
            self._active = max(self._active, known.index)
        if not call.keys() <= _KNOWN_FIELDS and (facts := {n: v for n, v in call.items() if n not in _KNOWN_FIELDS}):
            known.extra = {**(known.extra or {}), **facts}  # such as the signature of Gemini's thought
            known.maker = self._maker
            if not known.is_held:
                return [ToolCallPart("", "", arguments, known.index, provider=self._maker, extra=facts)]
        if not known.is_held:
            return [ToolCallPart("", "", arguments, known.index)] if arguments else []
        known.id = known.id or identity
        if known.id:
            self._known[known.id] = known
        known.named(name)
        if arguments:
            known.arguments.append(arguments)
        return []

    def released(self, *, everything: bool) -> Sequence[ToolCallPart]:
        """The calls that need not be held back any more, in their order."""
        held, released = self._held, list[ToolCallPart]()
        while held and (everything or self._is_known(held[0])):
            call = held.popleft()
            if call.id or call.name or call.arguments:  # some are but places
                released.append(call.part())
            call.is_held = False
        return released

    def _is_known(self, call: _Call) -> bool:
        if not call.id or not call.name:
            return False
        if self._names is None:
            self._names = _whole_names(self._tools)
        return call.index <= self._active or call.name in self._names
