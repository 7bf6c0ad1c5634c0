"""`Calls` joins the tool-call fragments of OpenAI's chat protocol, as OpenAI and compatible servers send them."""

from __future__ import annotations

import re
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
    """A call that may still grow, and the pieces of its arguments while the call is held back."""

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
        """Return whether a fragment with the index of this call opens another call."""
        if not name:
            return False
        if identity and self.id:
            return identity != self.id
        if not self.name:
            return False
        if name != self.name and (identity or not by_index):
            return True
        # Some gateways send whole calls without ids and with equal indices.
        new = name != self.name or (bool(arguments) and not identity and not self.id)
        return new and self.shape.is_whole(self.arguments)

    def add_name(self, name: str) -> None:
        """Add a piece of the name: the next letters, all letters so far, or the whole name again.

        Raises:
            ProtocolError: the name is too long.
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


_MARKS = r'(?s)\\.|["{}\[\]]'  # the escapes, quotes and brackets of JSON


class _Shape:
    """Tells whether JSON text that arrives in pieces is a whole object with a field. It reads each piece once."""

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
    """Return the names that are not a prefix of another tool's name."""
    names = sorted(set(tools))
    return frozenset(name for name, after in zip(names, [*names[1:], ""], strict=False) if not after.startswith(name))


class Calls:
    """The tool calls of one answer, numbered in the order in which the server opens them.

    `Calls` holds back a call, and the calls after it, until its id and its name are known. If the server never sends
    both, it holds back the call until the answer ends. A name that arrives in pieces is whole when it is the name of a
    tool in the request, or when arguments of this call or of a later call arrive.
    """

    __slots__ = ("_active", "_by_id", "_by_index", "_held", "_maker", "_names", "_opened", "_tools")

    def __init__(self, tools: Iterable[str] = (), maker: str | None = None) -> None:
        self._tools = tools
        self._maker = maker
        self._names: frozenset[str] | None = None  # the names that are surely whole; computed on first use
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._held: list[_Call] = []  # the calls that are held back, in order
        self._opened = 0
        self._active = -1  # the index of the latest call that has arguments

    def add(self, position: int, call: dict[str, Any]) -> Sequence[ToolCallPart]:
        """Add a fragment. Return what it adds to a call that was already released; a held call returns nothing.

        The first id and the first name of a call stay, because Novita repeats both in each fragment and Alibaba sends
        empty ids. Mistral omits the index, and Gemini gives the index 0 to all calls; so a new id with a name opens a
        new call even at the same index.

        Raises:
            ProtocolError: the answer has too many calls.
        """
        function = object_of(call.get("function") or call.get("custom"))
        arguments = function.get("arguments", function.get("input"))
        if not isinstance(arguments, str):  # Mistral may send an object
            arguments = "" if arguments is None else msgspec.json.encode(arguments).decode()
        identity, name = identity_of(call.get("id")), text_of(function.get("name"))
        index = count(call, "index")
        place = position if index is None else index
        target = self._by_id.get(identity) if index is None else None
        target = target or self._by_index.get(place)
        if target is None or target.is_another(identity, name, arguments, by_index=index is not None):
            if self._opened >= CALLS:
                raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
            target = self._by_index[place] = _Call(self._opened)
            self._held.append(target)
            self._opened += 1
        if arguments:
            self._active = max(self._active, target.index)
        if not call.keys() <= _KNOWN_FIELDS and (extra := {n: v for n, v in call.items() if n not in _KNOWN_FIELDS}):
            target.extra = {**(target.extra or {}), **extra}  # such as the signature of Gemini's reasoning
            target.maker = self._maker
            if not target.is_held:
                return [ToolCallPart("", "", arguments, target.index, provider=self._maker, extra=extra)]
        if not target.is_held:
            return [ToolCallPart("", "", arguments, target.index)] if arguments else []
        target.id = target.id or identity
        if target.id:
            self._by_id[target.id] = target
        target.add_name(name)
        if arguments:
            target.arguments.append(arguments)
        return []

    def released(self, *, everything: bool) -> Sequence[ToolCallPart]:
        """Return the calls that need not be held back any longer, in order."""
        held, released = self._held, list[ToolCallPart]()
        while held and (everything or self._is_known(held[0])):
            call = held.pop(0)
            if call.id or call.name or call.arguments:  # some servers send empty placeholders
                released.append(call.part())
            call.is_held = False
        return released

    def _is_known(self, call: _Call) -> bool:
        if not call.id or not call.name:
            return False
        if self._names is None:
            self._names = _whole_names(self._tools)
        return call.index <= self._active or call.name in self._names
