"""Ids of tool calls in the form that a protocol requires.

If a conversation moves to another vendor, that vendor may reject the ids of the first. `valid_id` replaces only such
ids, and always by the same id, so that the result of a call still names its call. `with_own_ids` replaces ids that are
missing, and ids that two calls share.
"""

from __future__ import annotations

import hashlib
import re

import attrs

from ..values.message import Message
from ..values.parts import Part, ToolCallPart, ToolResultPart

__all__ = ["valid_id", "with_own_ids"]


def valid_id(identity: str, pattern: str) -> str:
    """Return the id if it matches the pattern, else an id of 24 letters and digits that is derived from it."""
    if re.fullmatch(pattern, identity):
        return identity
    return "call" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:20]


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
        return message if parts == message.parts else attrs.evolve(message, parts=parts)

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
