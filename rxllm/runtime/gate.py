"""`Gate`: back-pressure between a consumer and the sources that feed it.

A gate is open or closed. The consumer of a stream closes it at its high-water mark and opens it at its low-water mark;
async handlers may close it, too. It opens when the consumer and all handlers have opened it. They do so on the gate's
event loop. Pumps only wait, on any loop.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

from .loops import Loop, in_loop

__all__ = ["HIGH_WATER", "LOW_WATER", "Gate"]


HIGH_WATER, LOW_WATER = 64, 16  # buffered items: the gate closes at the first and opens again at the second


class Gate:
    """A gate that a consumer closes when its buffer is full; pumps wait until it opens.

    The gate belongs to one event loop. Any number of pumps may wait at it, also on other loops: merged streams share
    the gate of their consumer.

    Attributes:
        is_open: whether the pumps may continue; a pump reads it after each item.
        room: the number of items that the consumer can take, at least 1. A source may read so many at once.
        opened_at: the time of the last opening. Time at a closed gate does not count as idle time.
        clock: returns the time of the loop, in seconds.
    """

    __slots__ = ("__weakref__", "_closers", "_followers", "_waiters", "clock", "is_open", "opened_at", "room")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.is_open = True
        self.room = 1
        self.opened_at = 0.0
        self._closers: set[object] = set()
        self._followers: tuple[weakref.ref[Gate], ...] = ()
        self._waiters: dict[asyncio.Future[None], None] = {}  # a dict, for its order

    def close(self, by: object = None) -> None:
        """Close the gate. `by` names the object that closes it, if it is not the consumer."""
        self._closers.add(by)
        self.is_open = False
        for follower in self._led():
            follower.close(by=self)

    def open(self, by: object = None) -> None:
        """Open the gate and wake all pumps, unless another object still keeps the gate closed."""
        self._closers.discard(by)
        if self.is_open or self._closers:
            return
        self.is_open = True
        self.opened_at = self.clock()
        waiters, self._waiters = self._waiters, {}
        for waiter in [*waiters]:
            _wake(waiter)
        for follower in self._led():
            follower.open(by=self)

    def lead(self, other: Gate) -> None:
        """Close another gate, of any loop, whenever this one is closed: the requests of a run pause with the run."""
        self._followers = (*(follower for follower in self._followers if follower() is not None), weakref.ref(other))
        if not self.is_open:
            other.close(by=self)
            if self.is_open:  # another loop has just opened it, and may not have seen the new follower
                other.open(by=self)

    def _led(self) -> list[Gate]:
        return [gate for follower in self._followers if (gate := follower()) is not None]

    async def wait(self) -> None:
        """Return when the gate has opened, even if it was closed again since: each waiting pump gets a turn."""
        if not self.is_open:
            await self.opening(asyncio.get_running_loop())

    def opening(self, loop: Loop) -> asyncio.Future[None]:
        """Return a future that is done when the closed gate opens."""
        waiter: asyncio.Future[None] = loop.create_future()
        waiter.add_done_callback(lambda waiter: self._waiters.pop(waiter, None))  # also when it is cancelled
        self._waiters[waiter] = None
        if self.is_open:  # another loop has just opened it, and may not have seen this waiter
            _wake(waiter)
        return waiter


def _wake(waiter: asyncio.Future[None]) -> None:
    """Complete the future of a waiting pump, on its loop."""
    loop = waiter.get_loop()
    if not in_loop(loop):
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_wake, waiter)
    elif not waiter.done():
        waiter.set_result(None)
