"""`MemoryLog`: the answers of a relay in the memory of one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager

from attrs import define, field

from ..runtime.forks import reset_in_child
from .logs import END, PAGE, Ending, Entry, Heard, Key, Listeners, Log, Position, next_epoch

__all__ = ["MemoryLog"]


@define
class _Answer:
    """An answer and its entries; the entry with the seq n is at the index n - 1."""

    epoch: int
    attended: float  # the time until which it counts as read
    entries: list[Entry] = field(factory=list[Entry])
    ended: bool = False


class MemoryLog(Log):
    """Keeps the answers in memory. They end with the process.

    Args:
        keep: the seconds for which an answer can be read after its end.
        max_bytes: the size of all events. Above it the log forgets answers that have ended and have no reader before
            `keep` is over, the oldest first.
    """

    lease = 3.0

    def __init__(self, *, keep: float = 600.0, max_bytes: int = 256 * 2**20) -> None:
        self.keep = keep
        self._max_bytes = max_bytes
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the answers in a forked child: their producers, and the timers that forget them, are in the parent."""
        self._room = self._max_bytes
        self._answers: dict[Key, _Answer] = {}
        self._listeners = Listeners()

    async def begin(self, key: Key, attended: float) -> int:
        """Begin an answer."""
        before = self._answers.get(key)
        if before is not None:
            await self.end(key, before.epoch, "abort")
            self._forget(key, before.epoch)
        epoch = next_epoch(before.epoch if before is not None else 0)
        self._answers[key] = _Answer(epoch, _now() + attended)
        self._listeners.tell(key)
        return epoch

    async def append(self, key: Key, epoch: int, first: int, events: Sequence[bytes]) -> bool:
        """Add events."""
        answer = self._open(key, epoch)
        if answer is None:
            return False
        known = len(answer.entries) + 1 - first
        answer.entries += [
            Entry(Position(epoch, seq), event) for seq, event in enumerate(events[known:], first + known)
        ]
        self._room -= sum(map(len, events[known:]))
        if self._room < 0:
            self._make_room()
        self._listeners.tell(key)
        return True

    async def end(self, key: Key, epoch: int, ending: Ending, data: bytes = b"") -> None:
        """End an answer, unless it has ended."""
        answer = self._open(key, epoch)
        if answer is not None:
            answer.entries.append(Entry(Position(epoch, END), data, ending))
            answer.ended = True
            self._room -= len(data)
            if self._room < 0:
                self._make_room()
            self._listeners.tell(key, epoch)
            asyncio.get_running_loop().call_later(self.keep, self._forget, key, epoch)

    async def read(self, key: Key, after: Position) -> Sequence[Entry] | None:
        """Return the entries that follow."""
        answer = self._answers.get(key)
        if answer is None or answer.epoch != after.epoch:
            return None
        # The last entry of an answer that has ended follows every seq but its own, which is END.
        first = min(after.seq, len(answer.entries) - 1) if answer.ended and after.seq != END else after.seq
        return answer.entries[first : first + PAGE]

    async def latest(self, key: Key) -> Position | None:
        """Return the id of the last entry."""
        answer = self._answers.get(key)
        if answer is None:
            return None
        return answer.entries[-1].id if answer.entries else Position(answer.epoch, 0)

    async def settle(self, key: Key, epoch: int) -> bool:
        """Return False: the producer is in this process, and ends its answer in every case."""
        return False

    async def attend(self, keys: Collection[Key], seconds: float) -> None:
        """Let the answers count as read."""
        until = _now() + seconds
        for key in keys:
            if (answer := self._answers.get(key)) is not None:
                answer.attended = until

    async def renew(self, answers: Collection[tuple[Key, int]]) -> Collection[tuple[Key, int]]:
        """Return the answers that have no reader, and those that have ended."""
        now = _now()
        found = ((pair, self._open(*pair)) for pair in answers)
        return [pair for pair, answer in found if answer is None or answer.attended <= now]

    @asynccontextmanager
    async def listening(self, key: Key, heard: Heard) -> AsyncGenerator[None]:
        """Let a function hear the changes."""
        self._listeners.add(key, heard)
        try:
            yield
        finally:
            self._listeners.remove(key, heard)

    def _forget(self, key: Key, epoch: int) -> None:
        answer = self._answers.get(key)
        if answer is not None and answer.epoch == epoch:
            del self._answers[key]
            self._room += sum(len(entry.data) for entry in answer.entries)

    def _make_room(self) -> None:
        """Forget answers that have ended and have no reader, until the others fit."""
        now = _now()
        for key, answer in [*self._answers.items()]:
            if self._room >= 0:
                return
            if answer.ended and answer.attended <= now:
                self._forget(key, answer.epoch)

    def _open(self, key: Key, epoch: int) -> _Answer | None:
        """Return the answer with this epoch, if it has not ended."""
        answer = self._answers.get(key)
        return answer if answer is not None and answer.epoch == epoch and not answer.ended else None


def _now() -> float:
    return asyncio.get_running_loop().time()
