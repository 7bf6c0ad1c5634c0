"""The turns within an agent's answer.

An agent's answer is one Message with the content of all rounds: text, calls, the results of the calls, more text.
Providers take the same content as several messages, and they require the results of calls directly after the calls.
`separated` converts the first form to the second::

    assistant: "Let me see." call 1, call 2, result 2, result 1, "It rains."
    ─►
    assistant: "Let me see." call 1, call 2
    tool:      result 1, result 2
    assistant: "It rains."

A call that waits for an approval has a `Pending` at the end of the answer. An `Approval` comes in a later message, and
the result of the call in the answer after it. `separated` moves the result to its call, and leaves out what is settled.
Some servers restart the ids of calls in each answer, so an approval belongs to the latest call before it with its id.
If the conversation continues without an approval, the waiting call gets a result that states this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, cast

import attrs

from .message import Message
from .parts import MAKER, Approval, Outcome, Part, Pending, RawPart, ToolResultPart, ends_round

__all__ = ["inserted", "last_round", "separated"]

_IGNORED = "Nobody approved this call, so it did not run."
_DENIED = "The user denied this call."
_INTERRUPTED = "The agent was interrupted while it ran this call."


def inserted(message: Message) -> RawPart:
    """Return the part of an agent's answer for a message that the agent got between two rounds."""
    return RawPart(MAKER, {"message": message.to_json()})


def last_round(answer: Message) -> Message:
    """Return an agent's answer without the rounds before its last one. A shape holds for this one only."""
    ends = [number for number, part in enumerate(answer.parts) if ends_round(part)]
    return attrs.evolve(answer, parts=answer.parts[ends[-1] + 1 :]) if ends else answer


def separated(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the conversation with each agent's answer as several messages, as the module describes."""
    if not any(map(_is_divisible, messages)):
        return messages
    conversation = _Conversation()
    for message in messages:
        conversation.add(message)
    return tuple(conversation.messages())


def _is_divisible(message: Message) -> bool:
    is_answer = message.role == "assistant"
    for part in message.parts:  # noqa: SIM110  (a generator would cost more, and this runs for each message)
        if isinstance(part, (Pending, Approval)) or (is_answer and ends_round(part)):
            return True
    return False


class _Turn:
    """A message, and the results of its calls, which follow it.

    Attributes:
        message: the message.
        unanswered: the positions of the calls without a result, by id.
        results: the results of the calls, each with the position of its call.
        begun: by the ids of the calls for which an agent got a decision: whether it began to run them.
        pending: the pending calls whose place is here, each with the turn of its call; None for other messages.
    """

    __slots__ = ("begun", "message", "pending", "results", "unanswered")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.unanswered: dict[str, list[int]] = {}
        for position, call in enumerate(message.tool_calls):
            self.unanswered.setdefault(call.id, []).append(position)
        self.results: list[tuple[int, ToolResultPart]] = []
        self.begun: dict[str, bool] = {}
        self.pending: list[tuple[Pending, _Turn]] | None = None

    def add_result(self, result: ToolResultPart) -> None:
        """Add the result of a call."""
        self.results.append((self.unanswered[result.id].pop(0), result))


class _Conversation:
    def __init__(self) -> None:
        self.turns: list[_Turn] = []
        self.last: Message | None = None

    def add(self, message: Message) -> None:
        self.last = message
        if message.role == "assistant" and _is_divisible(message):
            self._divide(message)
        elif not self._add_results(message):
            self.turns.append(_Turn(message))

    def _add_results(self, message: Message) -> bool:
        """Add the results in a message to the turns of their calls, and the rest of the message as a turn.

        Return whether this was possible: each result has its call, and nothing but parts would stay.
        """
        found = [(part, self._take(part.id)) for part in message.parts if isinstance(part, ToolResultPart)]
        rest = tuple(part for part in message.parts if not isinstance(part, ToolResultPart))
        is_plain = message == Message("tool", [part for part, _ in found]) and message.metadata is None
        if not (found and (rest or is_plain) and all(place for _, place in found)):
            return False
        for part, place in found:
            if place is not None:
                place[0].results.append((place[1], part))
        if rest:
            self.last = attrs.evolve(message, parts=rest)
            self.turns.append(_Turn(self.last))
        return True

    def _turn_of(self, id: str) -> _Turn | None:
        """Return the latest turn that has an unanswered call with this id."""
        return next((turn for turn in reversed(self.turns) if turn.unanswered.get(id)), None)

    def _decided_by(self, approval: Approval, before: int | None = None) -> _Turn | None:
        """Return the turn of the call that the approval is for: the latest one with its id, before a position."""
        return next((turn for turn in reversed(self.turns[:before]) if approval.call.id in turn.unanswered), None)

    def _take(self, id: str) -> tuple[_Turn, int] | None:
        """Note that a call is answered. Return its turn and its position."""
        turn = self._turn_of(id)
        return None if turn is None else (turn, turn.unanswered[id].pop(0))

    def _divide(self, message: Message) -> None:
        parts: list[Part] = []

        def end(**facts: Any) -> None:
            if parts:
                self.turns.append(_Turn(attrs.evolve(message, parts=tuple(parts), **facts)))
                parts.clear()

        without_facts: dict[str, Any] = dict.fromkeys(("usage", "finish_reason", "raw_finish_reason", "id"))
        without_facts["interrupted"] = False
        for part in message.parts:
            if not (isinstance(part, (Pending, Approval)) or ends_round(part)):
                parts.append(part)
                continue
            end(**without_facts)
            match part:
                case ToolResultPart():
                    self._add_result(part)
                case Pending() if (turn := self._turn_of(part.call.id)) is not None:
                    self._add_pending(part, turn, message)
                case Approval() if (turn := self._decided_by(part)) is not None:
                    turn.begun[part.call.id] = part.yes
                case RawPart():
                    self.turns.append(_Turn(Message.from_json(cast("Mapping[str, Any]", part.data["message"]))))
                case _:
                    pass  # the call has its result
        end()

    def _add_result(self, result: ToolResultPart) -> None:
        if (turn := self._turn_of(result.id)) is not None:
            turn.add_result(result)
        else:
            self.turns.append(_Turn(Message("tool", [result])))

    def _add_pending(self, pending: Pending, turn: _Turn, message: Message) -> None:
        """Add a pending call at the end. An earlier place of the same call is left."""
        for each in self.turns:
            if each.pending is not None:
                each.pending = [
                    (other, of) for other, of in each.pending if of is not turn or other.call.id != pending.call.id
                ]
        if self.turns[-1].pending is None:
            self.turns.append(_Turn(attrs.evolve(message, parts=())))
        self.turns[-1].pending = [*(self.turns[-1].pending or ()), (pending, turn)]

    def messages(self) -> Iterator[Message]:
        for number, turn in enumerate(self.turns):
            if turn.pending is not None:
                later = self.turns[number + 1 :]
                turn.pending = [(pending, of) for pending, of in turn.pending if _waits(pending, of, later)]
        for number, turn in enumerate(self.turns):
            message, parts = turn.message, turn.message.parts
            if turn.pending is not None:
                parts = tuple(pending for pending, _ in turn.pending)
            elif message is not self.last:  # in the last message an agent must see them
                parts = tuple(part for part in parts if not self._is_settled(part, number))
            if parts == message.parts and turn.pending is None:
                yield message
            elif parts:
                yield attrs.evolve(message, parts=parts)
            if turn.results:
                yield Message("tool", [result for _, result in sorted(turn.results, key=lambda item: item[0])])

    def _is_settled(self, part: Part, number: int) -> bool:
        """Return whether the part, of the turn with this number, is an approval of a call that has its result."""
        if not isinstance(part, Approval):
            return False
        turn = self._decided_by(part, number)
        return turn is not None and not turn.unanswered[part.call.id]


def _waits(pending: Pending, turn: _Turn, later: list[_Turn]) -> bool:
    """Return whether the call still waits for its approval or its result. If it waits in vain, add a result."""
    call = pending.call
    if not turn.unanswered.get(call.id):
        return False
    said = [part for each in later for part in each.message.parts]
    before_next = takewhile(lambda each: call.id not in each.unanswered, later)  # a later call may have the same id
    own = [part for each in before_next for part in each.message.parts if isinstance(part, Approval)]
    decisions = [approval.yes for approval in own if approval.call.id == call.id]
    is_over = any(each.message.role == "assistant" and each.pending is None for each in later)
    is_ignored = not decisions and any(not isinstance(part, (Approval, ToolResultPart)) for part in said)
    if not (is_over or is_ignored or call.id in turn.begun):
        return True
    may_have_run = turn.begun.get(call.id, any(decisions))
    outcome: Outcome = "interrupted" if may_have_run else "denied"
    text = _INTERRUPTED if may_have_run else _DENIED if decisions else _IGNORED
    turn.add_result(ToolResultPart(call.id, text, outcome, call.name))
    return False
