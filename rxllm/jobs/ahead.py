"""`read_ahead`: the items of a blocking iterable, which a thread reads some items before they are needed.

A call of the thread for each item takes longer than the reading. So the thread goes on while it is allowed to, and the
event loop takes what is there. An item that has arrived never waits for the next one: a pipe may be silent for hours.

The thread appends to `arrived`, and the event loop removes from it; both operations of a deque are atomic. The loop
publishes a future in `waiter` before it looks at `arrived` for the last time, and the thread looks at `waiter` after
each item, so one of them sees the other. The thread reads as many items as the loop allows through `allowed`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from ..runtime.loops import Loop, do_nothing, expect, raisable
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from ..runtime.threads import Worker

__all__ = ["AHEAD", "read_ahead"]

T = TypeVar("T")

AHEAD = 64  # items that the thread reads before they are needed


def read_ahead(make: Callable[[], Iterable[T]]) -> Source[T]:
    """Emit the items of the blocking iterable that `make` returns. A thread reads up to `AHEAD` items more than that.

    Disposing closes the iterable if it is a generator, after the item that the thread is reading.

    Errors: the exceptions of the iterable, after all items before it.
    """
    return source(lambda scheduler: _Reading(make).items(scheduler))


class _Reading:
    """One subscription."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self.make = make
        self.arrived: deque[Any] = deque()
        self.allowed: SimpleQueue[int] = SimpleQueue()
        self.waiter: asyncio.Future[None] | None = None
        self.woken: asyncio.Future[None] | None = None  # the last waiter that the thread has woken
        self.end = object()  # arrives after the last item
        self.error: BaseException | None = None  # with which the iterable ended
        self.is_closed = False

    async def items(self, scheduler: Scheduler) -> AsyncIterator[Any]:
        """Yield the items."""
        loop, arrived, taken = scheduler.loop, self.arrived, 0
        worker = Worker(loop, scheduler.context)
        self.allowed.put(AHEAD)
        worker.put(lambda: self.read(loop))
        try:
            while True:
                if not arrived:
                    self.waiter = waiter = expect(loop.create_future())
                    if not arrived:
                        await waiter
                    self.waiter = None
                if (item := arrived.popleft()) is self.end:
                    break
                taken += 1
                if taken == AHEAD // 2:  # one message for many items, because it wakes the thread
                    self.allowed.put(taken)
                    taken = 0
                yield item
        finally:
            self.is_closed = True
            self.allowed.put(0)
            worker.close(do_nothing)
        if self.error is not None:
            raise raisable(self.error)

    def read(self, loop: Loop) -> None:
        """Read the items, in the thread."""
        allowed = 0
        try:
            iterator = iter(self.make())
            try:
                while not self.is_closed:
                    if not allowed:
                        allowed = self.allowed.get()
                    elif (item := next(iterator, self.end)) is self.end:
                        break
                    else:
                        allowed -= 1
                        self.add(item, loop)
            finally:
                if isinstance(iterator, Generator):
                    iterator.close()
        except BaseException as error:
            self.error = error
        self.add(self.end, loop)

    def add(self, item: Any, loop: Loop) -> None:
        """Add an item, and wake the event loop if it waits."""
        self.arrived.append(item)
        waiter = self.waiter
        if waiter is not None and waiter is not self.woken:
            self.woken = waiter
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # a disposed subscription has cancelled it
        waiter.set_result(None)
