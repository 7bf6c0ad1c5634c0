"""`History`: where conversations are stored, and the form of their records.

A stored conversation is a list of records that only grows. Each record has a version, the key of its turn, and its
number within the turn. The first record of a turn has the question; the others have the answer, piece by piece::

    {"rxllm": 1, "turn": "…", "n": 0, "messages": [{"role": "user", …}]}
    {"rxllm": 1, "turn": "…", "n": 1, "chunk": {"text": "Hel"}}
    {"rxllm": 1, "turn": "…", "n": 2, "chunk": {"text": "lo", …}, "end": "whole"}

An answer stands where its question stands, even if another process has added turns while it was running. An answer
without an end, or with the end ``interrupted``, was cut short. A piece with ``reset`` takes back the pieces before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import attrs

from ..misuse import MisuseError
from ..public import PublicABC
from ..records import of_json, to_json
from ..values.chunk import Chunk, join
from ..values.message import Message
from ..values.parts import Approval
from ..values.request import MessageLike, messages_of

__all__ = [
    "START",
    "Entries",
    "Entry",
    "History",
    "Record",
    "answer_of",
    "key_of",
    "messages_record",
    "piece_record",
]

Record = Mapping[str, Any]
"""A part of a stored conversation: a dict of plain values, as JSON has them."""

START = "start"
"""The turn of the messages with which a conversation begins."""

_VERSION = 1


class Entry:
    """One place in a conversation.

    Attributes:
        message: the message; None while its answer is running, and if the answer failed before anything came.
    """

    __slots__ = ("message",)

    def __init__(self, message: Message | None = None) -> None:
        self.message = message


class _StoredAnswer:
    """The place of an answer that is read from records. Another process may still be adding pieces to it.

    A question with approvals claims their calls: until the answer has a record, it counts as an interrupted answer that
    has begun to run them. So no other process runs them, even if this one was killed.
    """

    def __init__(self, question: Sequence[Message]) -> None:
        self.pieces: list[Chunk] = []
        self.interrupted = True
        approvals = [part for message in question for part in message.parts if isinstance(part, Approval)]
        claim = Message("assistant", approvals, interrupted=True) if approvals else None
        self._joined: tuple[int, Message | None] = (0, claim)  # the number of pieces, and what they add up to

    @property
    def message(self) -> Message | None:
        count, message = self._joined
        if count != len(self.pieces):
            pieces = self.pieces.copy()
            self._joined = count, message = len(pieces), answer_of(pieces, interrupted=self.interrupted)
        return message


class Entries:
    """The messages that a list of records adds up to.

    Attributes:
        places: the messages and the places of answers, in order.
    """

    def __init__(self) -> None:
        self.places: list[Entry | _StoredAnswer] = []
        self._answers: dict[str, _StoredAnswer] = {}

    def messages(self) -> tuple[Message, ...]:
        """Return the messages that are there now. Any thread may call it."""
        return tuple(message for entry in self.places.copy() if (message := entry.message) is not None)

    def add(self, record: Record) -> None:
        """Apply a record.

        Raises:
            MisuseError: a later version of rxllm wrote the record, or it is malformed.
        """
        turn, _ = key_of(record)
        if "messages" in record:
            messages = [Message.from_json(each) for each in record["messages"]]
            self.places += map(Entry, messages)
            self._answers[turn] = answer = _StoredAnswer(messages)
            self.places.append(answer)
        elif "chunk" in record and turn in self._answers:
            answer = self._answers[turn]
            answer.interrupted = record.get("end") != "whole"
            answer.pieces.append(of_json(record["chunk"]))


def answer_of(chunks: Sequence[Chunk], *, interrupted: bool) -> Message | None:
    """Return the answer that the chunks add up to; None if it was cut short before anything came."""
    message = attrs.evolve(join(chunks).message(), interrupted=interrupted)
    return message if message.parts or not interrupted else None


def key_of(record: Record) -> tuple[str, int]:
    """Return the turn of a record and its number within the turn, which no other record has.

    Raises:
        MisuseError: a later version of rxllm wrote the record, or it is malformed.
    """
    version = record.get("rxllm") if isinstance(cast("object", record), Mapping) else None
    if not isinstance(version, int) or not isinstance(record.get("turn"), str) or not isinstance(record.get("n"), int):
        raise MisuseError(
            f"This is not a record of a conversation: {record!r:.100}. A History must return what it got."
        )
    if version > _VERSION:
        raise MisuseError(
            f"A later rxllm wrote this conversation, in form {version}; this version reads forms up to {_VERSION}. "
            "Upgrade rxllm."
        )
    return record["turn"], record["n"]


def messages_record(turn: str, messages: Iterable[Message], n: int = 0) -> Record:
    """Return the record of a question, or of other messages.

    Raises:
        MisuseError: a message holds a value that JSON cannot express.
    """
    return {"rxllm": _VERSION, "turn": turn, "n": n, "messages": [message.to_json() for message in messages]}


def piece_record(turn: str, n: int, piece: Chunk, end: str | None) -> Record:
    """Return the record of a piece of an answer."""
    record = {"rxllm": _VERSION, "turn": turn, "n": n, "chunk": to_json(piece)}
    return record if end is None else {**record, "end": end}


class History(ABC, metaclass=PublicABC):
    """Stores conversations. A store of your own has two methods, `read` and `write`.

    A conversation is a list of records that only grows. Both methods may block: rxllm calls them in a thread. Several
    processes may store one conversation: `write` checks that none of them has added a record meanwhile.
    """

    @abstractmethod
    def read(self, id: str, start: int, /) -> Sequence[Record]:
        """Return the records of the conversation from position `start` on, the first of which is 0."""

    @abstractmethod
    def write(self, id: str, position: int, records: Sequence[Record], /) -> bool:
        """Add records, if the conversation has exactly `position` records. Return whether it did.

        All records are added, or none, also when two processes write at the same time.
        """

    def load(self, id: str) -> tuple[Message, ...]:
        """Return the messages of a conversation; none if it is not stored. This method blocks.

        Raises:
            MisuseError: a later version of rxllm wrote the conversation.
        """
        entries = Entries()
        for record in self.read(id, 0):
            entries.add(record)
        return entries.messages()

    def append(self, id: str, messages: Sequence[MessageLike] | Message) -> None:
        """Add messages to a conversation. This method blocks.

        Raises:
            MisuseError: the messages cannot be stored.
        """
        import uuid

        record = messages_record(uuid.uuid4().hex, messages_of(messages))
        while not self.write(id, len(self.read(id, 0)), [record]):
            pass
