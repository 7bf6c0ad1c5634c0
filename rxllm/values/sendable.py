"""`sendable`: the messages of a conversation in a form that vendors accept.

A conversation keeps all content, also that of an incomplete answer. Vendors reject some of it: a call without its
result, an empty text, reasoning at the end, incomplete arguments. `sendable` repairs these for a request and does not
change the conversation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import attrs
import msgspec

from .characters import whole
from .message import Message
from .parts import Part, RawPart, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from .rounds import separated

__all__ = ["UNKNOWN_RESULT", "sendable"]

UNKNOWN_RESULT = "interrupted; it may or may not have run"
"""The result of a call whose result is unknown."""


def sendable(messages: Iterable[Message], new: Sequence[Message] = ()) -> tuple[Message, ...]:
    """Return the messages in a form that vendors accept.

    * An agent's answer becomes several messages; see `rounds`. A call that waits for an approval continues to wait.
    * Empty texts and messages without parts are left out.
    * Reasoning and raw parts at the end of an incomplete answer are left out, because the part that must follow them is
      missing. An answer that contains only reasoning is left out, too.
    * A call without a result is left out if its arguments are incomplete. Otherwise it gets the result
      `UNKNOWN_RESULT`. The results of an answer are then in the order of its calls.
    * A result without a call before it is left out, as when a view begins in the middle of a turn.
    * Half of a character, which no encoding can express, becomes U+FFFD.

    Args:
        messages: the messages.
        new: the new messages of the caller among them, which stay unchanged.
    """
    rounds = [_Round(None)]
    latest: dict[str, _Round] = {}  # by the ids of calls, which some servers restart in each answer
    for message in separated(tuple(messages)):
        is_new = any(message is each for each in new)
        if message.role == "assistant" and not is_new:
            rounds.append(_Round(message))
        else:
            rounds[-1].following.append((message, is_new))
        latest.update((call.id, rounds[-1]) for call in message.tool_calls)
        for pending in message.pending:
            if pending.call.id in latest:
                latest[pending.call.id].waiting.add(pending.call.id)
    return tuple(sent for each in rounds for sent in each.messages())


class _Round:
    """An answer, and the messages up to the next answer.

    Attributes:
        answer: the answer; None before the first one.
        following: the other messages, each with whether it is new.
        waiting: the ids of the calls that wait for an approval.
    """

    def __init__(self, answer: Message | None) -> None:
        self.answer = answer
        self.following: list[tuple[Message, bool]] = []
        self.waiting: set[str] = set()

    def messages(self) -> Iterator[Message]:
        """Yield the answer, the results of its calls, and the other messages."""
        calls = self.answer.tool_calls if self.answer else ()
        results = Counter(part.id for message, _ in self.following for part in _results(message))
        unanswered: list[ToolCallPart] = []
        for call in calls:
            if call.id in self.waiting:
                continue
            if results[call.id]:
                results[call.id] -= 1
            else:
                unanswered.append(call)
        unknown = [] if self.answer is None else (yield from self._answer(self.answer, unanswered))
        places = {call.id: place for place, call in enumerate(calls)}
        following = [(message if is_new else _known(message, places), is_new) for message, is_new in self.following]
        if unknown:
            known = [*takewhile(lambda each: not each[1] and _has_only_results(each[0]), following)]
            found = [part for message, _ in known for part in _results(message)]
            yield Message("tool", sorted([*found, *unknown], key=lambda result: places[result.id]))
            del following[: len(known)]
        for message, is_new in following:
            if is_new or message.parts or message.extra:
                yield message

    def _answer(
        self, answer: Message, unanswered: list[ToolCallPart]
    ) -> Generator[Message, None, list[ToolResultPart]]:
        """Yield the answer. Return the results of the calls whose result is unknown."""
        is_cut = answer.interrupted or answer.finish_reason == "length"
        last = answer.parts[-1] if answer.parts else None
        cut = [
            call
            for call in unanswered
            if not _is_object(call.arguments) or (is_cut and call is last and not call.arguments)
        ]
        parts = [part for part in answer.parts if not _is_empty(part) and not _is_one_of(part, cut)]
        while is_cut and parts and _is_unfinished(parts[-1]):
            parts.pop()
        if all(isinstance(part, ReasoningPart) for part in parts):
            parts = []
        if parts or answer.extra:
            yield _with_parts(answer, tuple(parts))
        return [
            ToolResultPart(call.id, UNKNOWN_RESULT, "interrupted", call.name)
            for call in unanswered
            if not _is_one_of(call, cut)
        ]


def _results(message: Message) -> Iterator[ToolResultPart]:
    return (part for part in message.parts if isinstance(part, ToolResultPart))


def _has_only_results(message: Message) -> bool:
    return message == Message("tool", [*_results(message)])


def _known(message: Message, ids: Container[str]) -> Message:
    """Return the message without empty texts, and without results of calls with other ids."""
    parts = tuple(
        part
        for part in message.parts
        if not _is_empty(part) and not (isinstance(part, ToolResultPart) and part.id not in ids)
    )
    return _with_parts(message, parts)


def _with_parts(message: Message, parts: tuple[Part, ...]) -> Message:
    """Return the message with these parts, and without halves of characters."""
    kept = message.parts if parts == message.parts else parts
    fields: dict[str, Any] = {"parts": kept, "name": message.name, "extra": message.extra}
    changes = {name: new for name, old in fields.items() if (new := whole(old)) is not getattr(message, name)}
    return attrs.evolve(message, **changes) if changes else message


def _is_one_of(part: Part, others: Sequence[Part]) -> bool:
    """Return whether the part itself is among the others; equal calls are different calls."""
    return any(part is other for other in others)


def _is_empty(part: Part) -> bool:
    if isinstance(part, TextPart):
        return not (part.text or part.signature or part.extra or part.citations)
    return isinstance(part, RefusalPart) and not part.text


def _is_unfinished(part: Part) -> bool:
    """Return whether a part must be followed by another one: reasoning, a raw block, or white space before a call."""
    return isinstance(part, (ReasoningPart, RawPart)) or (isinstance(part, TextPart) and not part.text.strip())


def _is_object(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return False
    return True
