"""`SlowStart`: opens many connections to one address a few at a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["SlowStart"]

T = TypeVar("T")

OPENING = 500
"""The maximum number of connections to one address that are being opened at the same time.

The program needs about a millisecond of CPU for each, and servers accept a limited number at once. If ten thousand
requests began to connect together, most would exceed the time limit of a connection.
"""
FEW = 8  # connections that may be opened in one turn of the event loop


class SlowStart:
    """The connections to one address that are being opened, on one event loop.

    A request that waits for its turn does not use up its time limit. So that requests to a server that does not answer
    do not wait for each other, a time-out ends the wait of all requests in whose time no connection was opened.
    """

    __slots__ = ("_opened_at", "_opening", "_timed_out_at", "_turns")

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(OPENING)
        self._opening = 0
        self._opened_at = self._timed_out_at = -math.inf

    async def open(self, connect: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `connect`, when it is its turn.

        Raises:
            TimeoutError: `connect` raised it, here or for an earlier request while this one waited for its turn.
        """
        turns, loop = self._turns, asyncio.get_running_loop()
        asked_at = loop.time() if turns.locked() else math.inf
        async with turns:
            if self._opened_at < asked_at < self._timed_out_at:
                raise TimeoutError
            self._opening += 1
            try:
                if self._opening > FEW:
                    # Thousands of requests may begin in this turn of the loop, which would use up the time limit.
                    await asyncio.sleep(0)
                connection = await connect()
            except TimeoutError:
                self._timed_out_at = loop.time()
                raise
            finally:
                self._opening -= 1
            self._opened_at = loop.time()
            return connection
