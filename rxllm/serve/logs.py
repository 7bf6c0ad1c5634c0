"""`Log`: where a relay keeps its answers, so that readers can attach, leave and come back.

A log keeps the latest answer of each conversation. An answer is a sequence of entries under ids ``<epoch>-<seq>``. A
new answer gets a larger epoch, and its entries count from 1. The last entry says how the answer ended; its seq is
`END`, the largest one. So three rules need no lock:

* an entry with an id that exists, or with a smaller one than the last, is refused. A producer may repeat a write whose
  reply was lost;
* an answer ends once. Of several ends the first counts;
* a producer that was cut off for a while cannot write after another process has ended its answer, or has begun the
  next one.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, NamedTuple, ParamSpec, TypeVar

from attrs import field, frozen

from ..errors import Overloaded

__all__ = [
    "END",
    "PAGE",
    "Ending",
    "Entry",
    "Heard",
    "Key",
    "Listeners",
    "Log",
    "LogLost",
    "Position",
    "next_epoch",
    "once",
    "patiently",
]

P = ParamSpec("P")
T = TypeVar("T")

END = 2**53 - 1  # the seq of the last entry: exact in JavaScript, in SQLite and in Redis
PAGE = 500  # entries that one `read` returns at most
_RETRY = 0.1  # seconds between two attempts to reach the log

Key = tuple[str, str]
"""The owner and the id of a conversation. Another owner's conversation is another one, even with the same id."""

Ending = Literal["finish", "abort", "failed", "interrupted"]

Heard = Callable[[int | None], None]
"""Hears of a change: of the epoch whose answer has ended, or of None after any other change."""

_POSITION = re.compile(r"(\d{1,16})-(\d{1,16})", re.ASCII)


class LogLost(Exception):
    """The log cannot be reached at the moment."""


class Position(NamedTuple):
    """The id of an entry."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position that `text` writes; None if it writes none."""
        match = _POSITION.fullmatch(text)
        return cls(int(match[1]), int(match[2])) if match and int(match[2]) <= END else None


@frozen
class Entry:
    """One entry of an answer.

    Attributes:
        id: its place.
        data: one event, in the bytes that readers get; of an answer that failed, the JSON of its `HTTPFailure`.
        ending: how the answer ended, in its last entry.
    """

    id: Position
    data: bytes = field(repr=False)
    ending: Ending | None = None


class Listeners:
    """The functions that hear of changes in this process."""

    def __init__(self) -> None:
        self._by_key: dict[Key, list[Heard]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, key: Key, heard: Heard) -> bool:
        """Let a function hear the changes of a conversation. Return whether it is the first one."""
        listeners = self._by_key.setdefault(key, [])
        listeners.append(heard)
        return len(listeners) == 1

    def remove(self, key: Key, heard: Heard) -> bool:
        """Undo `add`. Return whether the function was the last one."""
        listeners = self._by_key.get(key, [])
        if heard not in listeners:  # a forked child ends a listener of its parent
            return False
        listeners.remove(heard)
        if not listeners:
            del self._by_key[key]
        return not listeners

    def tell(self, key: Key, ended: int | None = None) -> None:
        """Call the functions of a conversation."""
        for heard in [*self._by_key.get(key, ())]:
            heard(ended)

    def tell_all(self) -> None:
        """Call all functions: any conversation may have changed."""
        for key in [*self._by_key]:
            self.tell(key)


class Log(ABC):
    """Keeps the answers of a relay. See the module for the rules.

    Attributes:
        lease: the seconds after which an answer counts as interrupted if its producer gives no sign of life. The relay
            renews three times as often.
        keep: the seconds for which an answer can be read after its end.
    """

    lease: float
    keep: float

    @abstractmethod
    async def begin(self, key: Key, attended: float) -> int:
        """Begin an answer, which counts as read for `attended` seconds. Return its epoch.

        An answer of the conversation that still runs ends as ``abort``.
        """

    @abstractmethod
    async def append(self, key: Key, epoch: int, first: int, events: Sequence[bytes]) -> bool:
        """Add events with the seqs from `first` on; events that are there already are skipped.

        Returns:
            False if the answer has ended, if another has begun, or if the log has lost an event before `first`.
        """

    @abstractmethod
    async def end(self, key: Key, epoch: int, ending: Ending, data: bytes = b"") -> None:
        """End an answer, unless it has ended."""

    @abstractmethod
    async def read(self, key: Key, after: Position) -> Sequence[Entry] | None:
        """Return at most `PAGE` entries of the answer ``after.epoch`` that follow `after`. It does not wait.

        Returns:
            None if the answer is not kept: it is too old, or the conversation has a newer one.
        """

    @abstractmethod
    async def latest(self, key: Key) -> Position | None:
        """Return the id of the last entry of the latest answer; its seq is 0 before the first entry."""

    @abstractmethod
    async def settle(self, key: Key, epoch: int) -> bool:
        """End the answer as ``interrupted`` if its producer has given no sign of life for `lease` seconds.

        Returns:
            Whether the answer may have changed.
        """

    @abstractmethod
    async def attend(self, keys: Collection[Key], seconds: float) -> None:
        """Let the latest answers of these conversations count as read for so many seconds from now."""

    @abstractmethod
    async def renew(self, answers: Collection[tuple[Key, int]]) -> Collection[tuple[Key, int]]:
        """Renew the leases of these answers. Return those that have no reader, and those that have ended."""

    @abstractmethod
    def listening(self, key: Key, heard: Heard) -> AbstractAsyncContextManager[None]:
        """Let a function hear the changes of a conversation, in any process, for the length of the block.

        A reader listens first and reads then: the function hears of what comes after that read. If a connection breaks,
        it may hear late or never; so a reader also looks from time to time.
        """

    async def aclose(self) -> None:  # noqa: B027  (most logs hold nothing open)
        """Close what the log holds open."""


def next_epoch(latest: int) -> int:
    """Return an epoch after `latest` that no earlier log has used: the time in milliseconds."""
    return max(latest + 1, int(time.time() * 1000))


async def once(call: Awaitable[T]) -> T:
    """Return the result of a call of the log.

    Raises:
        Overloaded: the log cannot be reached.
    """
    try:
        return await call
    except LogLost as error:
        raise Overloaded(f"The log of the relay is out of reach: {error}", status=503) from error


async def patiently(seconds: float, call: Callable[P, Awaitable[T]], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Call the log again and again until it can be reached.

    Raises:
        LogLost: it cannot be reached for so many seconds.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while True:
        try:
            return await call(*arguments, **keywords)
        except LogLost:
            if clock() >= deadline:
                raise
            await asyncio.sleep(_RETRY)
