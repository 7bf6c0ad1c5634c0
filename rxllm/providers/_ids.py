"""Ids and names of tool calls in the form that a protocol requires.

If a conversation moves to another vendor, that vendor may reject the ids of the first. `valid_id` replaces only such
ids, and always by the same id, so that the result of a call still names its call. `with_own_ids` replaces ids that are
missing, and ids that two calls share. `with_valid_names` replaces names that vendors reject.
`call_name_of` reads a name.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from ..values.message import Message
from ..values.parts import Part, ToolCallPart, ToolResultPart
from ..values.tools import ToolSpec, name_of_tool
from ._documents import text_of

__all__ = ["call_name_of", "valid_id", "with_own_ids", "with_valid_names"]

_NAME = "[a-zA-Z0-9_-]{1,64}"


def call_name_of(value: object) -> str:
    """Return the name of a called tool, without the special tokens that models such as gpt-oss write after it.

    An example is ``search<|channel|>commentary``. Vendors allow no such characters in names.
    """
    return text_of(value).partition("<|")[0]


def valid_id(identity: str, pattern: str) -> str:
    """Return the id if it matches the pattern, else an id of 24 letters and digits that is derived from it.

    If the pattern allows no such id, the derived id has nine characters, as Mistral requires.
    """
    if re.fullmatch(pattern, identity):
        return identity
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
    derived = "call" + digest[:20]
    return derived if re.fullmatch(pattern, derived) else digest[:9]


def with_own_ids(messages: tuple[Message, ...], *, in_all_rounds: bool) -> tuple[Message, ...]:
    """Return the messages with a different id for each call of a round, and with the same ids for the results.

    Some servers send no ids, or the same one for all calls. The results answer the calls of their round in order. Some
    servers begin again in each round: they may know their ids again, but Claude rejects a conversation in which any
    calls share an id. `in_all_rounds` gives these calls different ids, too.
    """
    ids = [call.id for message in messages for call in message.tool_calls]
    if "" not in ids and len({*ids}) == len(ids):
        return messages
    renamed = _Renamed(ids, in_all_rounds=in_all_rounds)
    return tuple(map(renamed.message, messages))


class _Renamed:
    """The ids of a conversation, which is read from its beginning.

    Attributes:
        taken: all ids of the conversation, old and new.
        used: the ids of the calls so far, in this round or in all rounds.
        waiting: the new ids of the calls of this round without a result, by their old id.
        latest: the new id of the latest call, by its old id.
        is_answer: whether the message before is the assistant's.
    """

    def __init__(self, ids: list[str], *, in_all_rounds: bool) -> None:
        self.in_all_rounds = in_all_rounds
        self.taken = {*ids}
        self.used = {""}
        self.waiting: dict[str, list[str]] = {}
        self.latest: dict[str, str] = {}
        self.is_answer = False

    def message(self, message: Message) -> Message:
        """Return the message with the new ids."""
        is_answer = message.role == "assistant"
        if is_answer and not self.is_answer:
            self.waiting.clear()
            self.used = self.used if self.in_all_rounds else {""}
        self.is_answer = is_answer
        parts = tuple(map(self.part, message.parts))
        return _with_parts(message, parts)

    def part(self, part: Part) -> Part:
        """Return the part with its new id."""
        if isinstance(part, ToolCallPart):
            identity = self.own(part.id)
            self.waiting.setdefault(part.id, []).append(identity)
            self.latest[part.id] = identity
        elif isinstance(part, ToolResultPart):
            waiting = self.waiting.get(part.id)
            identity = waiting.pop(0) if waiting else self.latest.get(part.id, part.id)
        else:
            return part
        return part if identity == part.id else attrs.evolve(part, id=identity)

    def own(self, identity: str) -> str:
        """Return the id, or a new one if a call before has it."""
        number, own = 1, identity
        while own in self.used or (own != identity and own in self.taken):
            number += 1
            own = f"{identity or 'call'}_{number}"
        self.used.add(own)
        self.taken.add(own)
        return own


def with_valid_names(
    messages: tuple[Message, ...], pattern: str, tools: Iterable[ToolSpec | Mapping[str, Any]]
) -> tuple[Message, ...]:
    """Return the messages with names that a vendor accepts, for calls and results of tools that do not exist.

    A model may call a tool that it made up, such as ``functions.now``. Vendors reject the rest of the conversation if
    such a name has characters that they do not allow, or if it is empty.

    Args:
        messages: the messages.
        pattern: a regular expression for the names that the vendor accepts; empty if this is unknown.
        tools: the tools of the request, whose names stay.
    """
    offered = {*map(name_of_tool, tools)}

    def named(part: Part) -> Part:
        if not isinstance(part, (ToolCallPart, ToolResultPart)) or part.name in offered:
            return part
        if not part.name and isinstance(part, ToolResultPart):  # only some providers need the name
            return part
        name = _valid_name(part.name, pattern or _NAME)
        return part if name == part.name else attrs.evolve(part, name=name)

    turns = tuple(_with_parts(message, tuple(map(named, message.parts))) for message in messages)
    return messages if all(map(operator.is_, turns, messages)) else turns


def _with_parts(message: Message, parts: tuple[Part, ...]) -> Message:
    """Return the message with these parts; the same object if they are its own."""
    return message if parts == message.parts else attrs.evolve(message, parts=parts)


def _valid_name(name: str, pattern: str) -> str:
    if re.fullmatch(pattern, name):
        return name
    plain = re.sub("[^a-zA-Z0-9_-]", "_", name)[:60] or "unknown"
    return plain if re.fullmatch(pattern, plain) else f"_{plain}"
