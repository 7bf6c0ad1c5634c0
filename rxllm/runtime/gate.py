"""`Gate`: back-pressure between a consumer and the sources that feed it."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

from .loops import Loop, in_loop

__all__ = ["HIGH_WATER", "LOW_WATER", "Gate"]


HIGH_WATER, LOW_WATER = 64, 16  # items that wait for a consumer: the gate closes at HIGH, and opens again at LOW


class Gate:
    """Whether more may come: a consumer closes it when it has enough, pumps wait until it opens.

    It belongs to one loop, and any number of pumps may wait at it (merged streams share their consumer's gate), of
    other loops, too.

    Attributes:
        is_open: read by pumps after each item.
        opened_at: the time of the last opening; waiting at a closed gate is not idleness.
        clock: gives the time of the loop.
    """

    __slots__ = ("__weakref__", "_closers", "_followers", "_waiters", "clock", "is_open", "opened_at")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.is_open = True
        self.opened_at = 0.0
        self._closers: set[object] = set()
        self._followers: tuple[weakref.ref[Gate], ...] = ()
        self._waiters: dict[asyncio.Future[None], None] = {}  # in their order

    def close(self, by: object = None) -> None:
        """Lets nothing more come; `by` is who has enough, beside the consumer."""
        self._closers.add(by)
        self.is_open = False
        for follower in self._led():
            follower.close(by=self)

    def open(self, by: object = None) -> None:
        """Lets everybody who waits go on, unless another has closed it, too."""
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
        """Has another, of any loop, be closed whenever this one is: what a run asks for stops with the run."""
        self._followers = (*(known for known in self._followers if known() is not None), weakref.ref(other))
        if not self.is_open:
            other.close(by=self)
            if self.is_open:  # since a moment ago, by another loop, which may not have seen this one
                other.open(by=self)

    def _led(self) -> list[Gate]:
        return [gate for follower in self._followers if (gate := follower()) is not None]

    async def wait(self) -> None:
        """Returns when the gate has opened, even if another has closed it since: each who waits gets his turn."""
        if not self.is_open:
            await self.opening(asyncio.get_running_loop())

    def opening(self, loop: Loop) -> asyncio.Future[None]:
        """Done when the closed gate opens."""
        waiter: asyncio.Future[None] = loop.create_future()
        waiter.add_done_callback(lambda waiter: self._waiters.pop(waiter, None))  # also when nobody waits any more
        self._waiters[waiter] = None
        if self.is_open:  # since a moment ago, by another loop, which may not have seen this one waiting
            _wake(waiter)
        return waiter


def _wake(waiter: asyncio.Future[None]) -> None:
    """Ends a wait, on its loop."""
    loop = waiter.get_loop()
    if not in_loop(loop):
        with suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(_wake, waiter)
    elif not waiter.done():
        waiter.set_result(None)
