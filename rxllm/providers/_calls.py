"""`Calls` joins the tool-call fragments of OpenAI's chat protocol, as OpenAI and compatible servers send them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..bounds import CALLS, NAME_CHARACTERS
from ..errors import ProtocolError
from ..values.parts import ToolCallPart
from ._documents import count, identity_of, is_cut, is_same_object, json_of, object_of
from ._growing_objects import Shape, grown
from ._ids import call_name_of

__all__ = ["Calls"]


SHORT = 2**16  # characters of arguments that are searched for their end, to tell calls with the same id apart
_KNOWN_FIELDS = frozenset(("index", "id", "type", "function", "custom"))


class _Call:
    """A call that may still grow, the pieces of its arguments, and the number of their characters.

    Attributes:
        is_blank: the arguments so far are ``{}``, which stand for none if others follow.
        is_cumulative: each fragment repeats the arguments before it.
        is_custom: the call has a text of any form instead of arguments.
        object: the arguments so far, if the server sends objects instead of text.
    """

    __slots__ = (
        "arguments", "extra", "id", "index", "is_blank", "is_cumulative", "is_custom", "is_held", "maker", "name",
        "object", "shape", "size",
    )  # fmt: skip

    def __init__(self, index: int, *, is_custom: bool) -> None:
        self.id = self.name = ""
        self.index = index
        self.extra: dict[str, Any] | None = None
        self.maker: str | None = None
        self.is_custom = is_custom
        self.is_held = True
        self.is_blank = self.is_cumulative = False
        self.arguments: list[str] = []
        self.object: dict[str, Any] | None = None
        self.size = 0
        self.shape = Shape()

    def is_another(self, identity: str, name: str, arguments: str, *, by_index: bool) -> bool:
        """Return whether a fragment with the index of this call opens another call."""
        if not name:
            return False
        if identity and self.id and identity != self.id:
            return True
        if not self.name:
            return False
        if identity and self.id:  # some servers send the same id for all calls
            is_new = not name.startswith(self.name) or (arguments.startswith("{") and not self.is_repeat(arguments))
            return is_new and self.is_short_and_whole()
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
        if name == self.name or (self.name and (self.arguments or self.is_blank)):
            return
        self.name = name if name.startswith(self.name) else self.name + name
        if len(self.name) > NAME_CHARACTERS:
            raise ProtocolError(f"The name of a tool call is longer than {NAME_CHARACTERS:,} characters.")

    def add_arguments(self, arguments: str, value: object) -> str:
        """Add a fragment of the arguments. Return what it adds to those before it, unless `end` returns all of them.

        Args:
            arguments: the fragment as text.
            value: the fragment as the server sent it.
        """
        if value is not arguments and self._add_object(object_of(value)):
            return ""
        if not self.size:
            if arguments == "null":
                return ""
            self.is_blank = arguments == "{}" or (self.is_blank and not arguments)
            if self.is_blank:  # servers of Bedrock's models send this before the arguments
                return ""
        elif self.is_repeat(arguments):
            return ""
        elif len(arguments) >= self.size:
            arguments = self._rest(arguments)
        if arguments:
            self.arguments.append(arguments)
            self.size += len(arguments)
        return arguments if self.object is None else ""

    def _add_object(self, fields: dict[str, Any]) -> bool:
        """Add the next fields, the next pieces of fields, or all fields so far. Return whether this is possible.

        It is possible while the arguments are objects.

        Raises:
            ProtocolError: they are long. Each object changes the text of all, so the work would grow with their square.
        """
        if not fields or (self.size and self.object is None):
            return False
        if self.size > SHORT:
            raise ProtocolError(f"The server sent arguments of more than {SHORT:,} characters in several objects.")
        self.object, self.is_blank = grown(self.object or {}, fields), False
        self.arguments = [msgspec.json.encode(self.object).decode()]
        self.size = len(self.arguments[0])
        return True

    def end(self) -> str:
        """Return the arguments that were not emitted: ``{}`` that no others followed, or objects."""
        if self.is_blank:
            self.size, self.arguments = 2, ["{}"]
        elif self.object is None:
            return ""
        self.is_blank, self.object = False, None
        return "".join(self.arguments)

    def _rest(self, arguments: str) -> str:
        """Return a fragment without the arguments before it, if it repeats them.

        A fragment may only look like a repetition: in ``{"a":{"a":1}}`` the second ``{"a":`` belongs to the arguments.
        """
        before = "".join(self.arguments)
        if not arguments.startswith(before):
            return arguments
        if not self.is_cumulative:
            self.is_cumulative = _begins_json(arguments) and not _begins_json(before + arguments)
        return arguments[len(before) :] if self.is_cumulative else arguments

    def wants(self, arguments: str) -> bool:
        """Return whether this call can be the one that a fragment without an id and a name continues."""
        return self.shape.is_open(self.arguments) or bool(arguments and self.id and self.name and not self.size)

    def is_short_and_whole(self) -> bool:
        """Return whether the arguments are whole. To find that out takes too long for megabytes of them."""
        return self.size <= SHORT and self.shape.is_whole(self.arguments)

    def is_repeat(self, arguments: str) -> bool:
        """Return whether a fragment only repeats the whole arguments, as gateways and parsers of vLLM do at the end.

        White space may differ, and the fragment may be a JSON text, but not in the text of a custom tool. A far shorter
        fragment is not compared, so that the work keeps to the number of received bytes.
        """
        is_long = len(arguments) > 5 and 8 * len(arguments) > self.size
        if not (is_long and arguments.lstrip().startswith(("{", '"{')) and self.is_short_and_whole()):
            return False
        before = "".join(self.arguments)
        return before == arguments or (not self.is_custom and is_same_object(before, arguments))

    def part(self) -> ToolCallPart:
        """Release the call with its arguments so far."""
        self.is_held = False
        arguments = "".join(self.arguments) if self.object is None else ""
        return ToolCallPart(self.id, self.name, arguments, self.index, provider=self.maker, extra=self.extra)


def _written(value: object) -> str:
    """Return arguments that are no text as JSON. Mistral and MiniMax may send an object."""
    return "" if value is None else msgspec.json.encode(value).decode()


def _begins_json(text: str) -> bool:
    """Return whether a JSON object may begin with this text, or is this text."""
    body = text.encode("utf-8", "replace")
    return is_cut(body) or bool(object_of(json_of(body)))


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

    __slots__ = (
        "_active", "_by_id", "_by_index", "_held", "_latest", "_maker", "_names", "_opened", "_tools",
        "has_some",
    )  # fmt: skip

    def __init__(self, tools: Iterable[str] = (), maker: str | None = None) -> None:
        self._tools = tools
        self._maker = maker
        self._names: frozenset[str] | None = None  # the names that are surely whole; computed on first use
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._held: list[_Call] = []  # the calls that are held back, in order
        self._opened: list[_Call] = []  # all calls, in order
        self._latest: _Call | None = None  # the call that was opened last
        self.has_some = False  # a call was released
        self._active = -1  # the index of the latest call that has arguments

    def add(self, position: int, call: dict[str, Any]) -> Sequence[ToolCallPart]:
        """Add a fragment. Return what it adds to a call that was already released; a held call returns nothing.

        The first id and the first name of a call stay, because Novita repeats both in each fragment and Alibaba sends
        empty ids. Mistral omits the index, and Gemini and Ollama give the index 0 to all calls; so a new id with a name
        opens a new call even at the same index, and a later fragment with a known id belongs to the call with this id.

        Raises:
            ProtocolError: the answer has too many calls.
        """
        function = object_of(call.get("function") or call.get("custom"))
        value = function.get("arguments", function.get("input"))
        arguments = value if isinstance(value, str) else _written(value)
        identity, name = identity_of(call.get("id")), call_name_of(function.get("name"))
        index = count(call, "index")
        place = position if index is None else index
        target, known = self._by_index.get(place), self._by_id.get(identity)
        if known is not None and (target.id != identity if target else index is None or not name):
            target = known
        if target is None and known is not None and name == known.name and known.is_repeat(arguments):
            target = self._by_index[place] = known  # LocalAI sends a whole call again, with another index
        elif target is None and not (identity or name) and self._latest and self._latest.wants(arguments):
            target = self._by_index[place] = self._latest  # some servers change the index within the call
        if target is None or target.is_another(identity, name, arguments, by_index=index is not None):
            if len(self._opened) >= CALLS:
                raise ProtocolError(f"The response has more than {CALLS:,} tool calls.")
            target = self._latest = self._by_index[place] = _Call(len(self._opened), is_custom="custom" in call)
            self._held.append(target)
            self._opened.append(target)
        if target.is_held:
            target.id = target.id or identity
            if target.id:
                self._by_id[target.id] = target
            target.add_name(name)
        if arguments and arguments != "null":
            self._active = max(self._active, target.index)
        arguments = target.add_arguments(arguments, value)
        extra: dict[str, Any] | None = None  # such as the signature of Gemini's reasoning
        if not call.keys() <= _KNOWN_FIELDS:
            extra = {field: value for field, value in call.items() if field not in _KNOWN_FIELDS}
            target.extra, target.maker = {**(target.extra or {}), **extra}, self._maker
        if target.is_held or not (arguments or extra):
            return []
        return [ToolCallPart("", "", arguments, target.index, provider=self._maker if extra else None, extra=extra)]

    def released(self, *, everything: bool) -> Sequence[ToolCallPart]:
        """Return the calls that need not be held back any longer, in order."""
        held, released = self._held, list[ToolCallPart]()
        while held and (everything or self._is_known(held[0])):
            call = held.pop(0)
            if everything:
                call.end()
            if call.id or call.name or call.arguments:  # some servers send empty placeholders
                released.append(call.part())
                self.has_some = True
            call.is_held = False
        if everything:
            released += [ToolCallPart("", "", rest, call.index) for call in self._opened if (rest := call.end())]
        return released

    def _is_known(self, call: _Call) -> bool:
        if not call.id or not call.name:
            return False
        if self._names is None:
            self._names = _whole_names(self._tools)
        return call.index <= self._active or call.name in self._names
