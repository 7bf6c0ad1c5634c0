"""`Relay`: answers that outlive their readers.

An answer has one producer: a task of its own, which subscribes to the model and writes events into the log. A reader
follows the log. So a reader may leave and come back, in another process too, and gets each event once, by its id.

Three things end an answer before the model does: `Relay.stop`, in any process; no reader for `linger` seconds; and a
newer answer of the same conversation. Each writes the end into the log. The producer hears of the end and disposes its
subscription, which closes the request to the model.

While the log cannot be reached, the producer reads on from the model only until the buffer of its subscription is full,
and then pauses. After `patience` seconds it gives up, and the answer is interrupted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
from reactivex import Observable

from ..bridges import AsyncStream, from_aiter
from ..errors import Interrupted
from ..runtime.forks import reset_in_child
from ..values.characters import json_bytes
from .failures import HTTPFailure, Refused, failure_of, log
from .logs import END, PAGE, Ending, Entry, Key, Log, LogLost, Position, once, patiently
from .memory_log import MemoryLog
from .response import Encoder

__all__ = ["Relay"]

T = TypeVar("T")

_logger = logging.getLogger("rxllm.serve")
_inherited: list[asyncio.Task[None]] = []  # of the process that forked this one; a freed task runs its `finally` blocks
_BYTES = 32 * 2**20
_FAREWELL = 2.0  # seconds that a cancelled producer has for writing its end


class _Fenced(Exception):
    """The log takes no more entries of this answer: it has ended, or a newer one has begun."""


class Relay:
    """Runs answers and lets readers follow them. Use it on one event loop.

    ::

        model      -Hel--lo----|
        log        -1---2-----3|         ids
        reader     -1-x                  leaves …
        again            ^2---3|         … and comes back after 1, in another process too

    Args:
        log: where the answers are; in memory by default, so that readers must come back to the same process.
        linger: the seconds without a reader after which an answer ends as ``abort``, which ends its cost.
        patience: the seconds for which the log may be out of reach before an answer is interrupted.
        max_bytes: the size of one answer's events, above which the answer fails.
    """

    def __init__(
        self, log: Log | None = None, *, linger: float = 30.0, patience: float = 10.0, max_bytes: int = _BYTES
    ) -> None:
        self._log = MemoryLog() if log is None else log
        self._linger = linger
        self._patience = patience
        self._max_bytes = max_bytes
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the tasks and the readers of the parent in a forked child, which does not run them."""
        _inherited.extend(vars(self).get("_producers", {}).values())
        self._producers: dict[tuple[Key, int], asyncio.Task[None]] = {}
        self._beginning = 0  # answers that wait for the log
        self._readers: Counter[Key] = Counter()
        self._waiting: set[asyncio.Event] = set()  # of the readers
        self._keeper: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        """How many answers begin or run in this process."""
        return len(self._producers) + self._beginning

    async def start(self, key: Key, source: Observable[T], encoder: Encoder[T]) -> Position:
        """Begin an answer, and return the position before its first entry. An answer that still runs ends as ``abort``.

        Raises:
            Overloaded: the log cannot be reached.
        """
        self._beginning += 1
        try:
            epoch = await once(self._log.begin(key, self._linger))
        finally:
            self._beginning -= 1
        task = asyncio.create_task(self._produce(key, epoch, source, encoder), name=f"rxllm relay {key[1]}")
        self._producers[key, epoch] = task
        task.add_done_callback(lambda _: self._producers.pop((key, epoch)))
        self._keep()
        return Position(epoch, 0)

    async def running(self, key: Key) -> Position | None:
        """Return the position before the first entry of the answer that runs; None if none does.

        Raises:
            Overloaded: the log cannot be reached.
        """
        latest = await once(self._log.latest(key))
        return None if latest is None or latest.seq == END else Position(latest.epoch, 0)

    async def keeps(self, key: Key, after: Position) -> bool:
        """Return whether the log has the answer of this position."""
        latest = await once(self._log.latest(key))
        return latest is not None and latest.epoch == after.epoch

    async def ending(self, key: Key, epoch: int) -> Ending | HTTPFailure | None:
        """Return how an answer has ended, or its failure; None if it runs, or if the log no longer has it.

        Raises:
            Overloaded: the log cannot be reached.
        """
        entries = await once(self._log.read(key, Position(epoch, END - 1)))
        if not entries:
            return None
        [last] = entries
        return msgspec.json.decode(last.data, type=HTTPFailure) if last.ending == "failed" else last.ending

    def follow(self, key: Key, after: Position) -> Observable[Entry]:
        """Emit the entries after a position as they come. The last one ends as ``finish`` or ``abort``.

        An answer ends as ``abort`` when the conversation has a newer one.

        Errors: `Refused` with the failure of the answer; `Interrupted` if its producer has died, if the log has lost
        it, or if the log cannot be reached for `patience` seconds.
        """
        return from_aiter(lambda: self._entries(key, after))

    async def stop(self, key: Key) -> bool:
        """End the answer that runs, in whichever process. Return whether there was one."""
        position = await self.running(key)
        if position is None:
            return False
        await once(self._log.end(key, position.epoch, "abort"))
        return True

    async def aclose(self) -> None:
        """End all answers of this process as ``interrupted``, and close the log."""
        tasks = [*self._producers.values(), *([self._keeper] if self._keeper is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._log.aclose()

    # ── the producer ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _produce(self, key: Key, epoch: int, source: Observable[T], encoder: Encoder[T]) -> None:
        """Write the answer and its end. A cancelled producer's answer is interrupted, unless it has ended before."""
        ending: Ending = "interrupted"
        data = b""
        try:
            async with self._log.listening(key, self._cancels(epoch)):
                data = await self._write(key, epoch, source, encoder)
            ending = "finish"
        except _Fenced:
            pass
        except LogLost as error:
            _logger.warning("An answer is interrupted, because its log is out of reach: %s", error)
        except Exception as error:
            failure = failure_of(error)
            log(error, failure)
            ending, data = "failed", json_bytes(failure)
        finally:
            with suppress(LogLost, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._log.end(key, epoch, ending, data)

    def _cancels(self, epoch: int) -> Callable[[int | None], None]:
        task = asyncio.current_task()

        def heard(ended: int | None) -> None:
            if ended == epoch and task is not None:
                task.cancel()

        return heard

    async def _write(self, key: Key, epoch: int, source: Observable[T], encoder: Encoder[T]) -> bytes:
        """Write all events of an answer but the last, and return that."""
        seq, room = 1, self._max_bytes

        async def append(events: list[bytes]) -> None:
            nonlocal seq, room
            room -= sum(map(len, events))
            if room < 0:
                raise _too_large(self._max_bytes)
            if events and not await patiently(self._patience, self._log.append, key, epoch, seq, events):
                raise _Fenced
            seq += len(events)

        async with AsyncStream(source) as stream:
            beginning = encoder.begin()
            try:
                while True:  # without a name for the items, which would keep them until the next ones
                    await append(_events(beginning + b"".join(map(encoder.encode, await stream.burst()))))
                    beginning = b""
            except StopAsyncIteration:
                *events, last = _events(beginning + encoder.end())
                await append(events)
                return last

    # ── the reader ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _entries(self, key: Key, after: Position) -> AsyncGenerator[Entry]:
        if after.seq == END:
            return
        changed = asyncio.Event()
        self._waiting.add(changed)
        self._readers[key] += 1
        self._keep()
        try:
            await self._attend([key])
            async with self._log.listening(key, lambda _: changed.set()):
                while True:
                    changed.clear()
                    entries = await patiently(self._patience, self._log.read, key, after)
                    if entries is None:
                        if not await self._is_newer(key, after.epoch):
                            raise Interrupted("The log has lost the answer.")
                        yield Entry(Position(after.epoch, END), b"", "abort")
                        return
                    for entry in entries:
                        yield _readable(entry)
                        if entry.ending is not None:
                            return
                        after = entry.id
                    count = len(entries)
                    del entries  # a log in a file or in Redis has made them for this reader
                    if not count and await patiently(self._patience, self._log.settle, key, after.epoch):
                        continue
                    if count < PAGE:
                        await changed.wait()  # not longer than a third of a lease: the producer may have died
        except LogLost as error:
            raise Interrupted(f"The log of the relay was out of reach for {self._patience:g} s.") from error
        finally:
            self._waiting.discard(changed)
            self._readers[key] -= 1
            if not self._readers[key]:
                del self._readers[key]
            await self._attend([key])

    async def _is_newer(self, key: Key, epoch: int) -> bool:
        latest = await patiently(self._patience, self._log.latest, key)
        return latest is not None and latest.epoch > epoch

    async def _attend(self, keys: Sequence[Key]) -> None:
        with suppress(LogLost):
            await self._log.attend(keys, self._linger)

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._renew(), name="rxllm relay keeper")

    async def _renew(self) -> None:
        """Renew the leases and the marks of readers at regular intervals, and end the answers that have no reader.

        Each time, every reader reads the log, whether or not it has heard of a change.
        """
        while self._producers or self._readers:
            for changed in self._waiting:
                changed.set()
            with suppress(LogLost):
                await self._attend([*self._readers])
                for key, epoch in await self._log.renew([*self._producers]):
                    await self._log.end(key, epoch, "abort")
                    if (producer := self._producers.get((key, epoch))) is not None:
                        producer.cancel()
            await asyncio.sleep(min(self._log.lease, self._linger) / 3)


def _events(data: bytes) -> list[bytes]:
    return data.removesuffix(b"\n\n").split(b"\n\n") if data else []


def _readable(entry: Entry) -> Entry:
    """Return the entry, unless its answer ended with an error, which is raised."""
    if entry.ending == "failed":
        raise Refused(msgspec.json.decode(entry.data, type=HTTPFailure))
    if entry.ending == "interrupted":
        raise Interrupted("The process that produced this answer ended before the answer did.")
    return entry


def _too_large(limit: int) -> Refused:
    return Refused(HTTPFailure(502, "server_error", "TooLarge", f"The answer has more than {limit} bytes."))
