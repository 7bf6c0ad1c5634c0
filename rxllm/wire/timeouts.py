"""`Timeouts`: the time limits of a request; and `limited`, which keeps the limit for the next bytes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from attrs import field, frozen

from ..misuse import MisuseError, shown
from ..public import Public

__all__ = ["Timeouts", "limited", "timeouts_of"]

T = TypeVar("T")


def _seconds(_: object, attribute: Any, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < math.inf):
        raise MisuseError(
            f"The timeout {attribute.name!r} must be a positive number of seconds, or None for ever, "
            f"not {shown(value)}."
        )


@frozen
class Timeouts(metaclass=Public):
    """Time limits in seconds; None waits without limit.

    Attributes:
        connect: the limit for a connection.
        read: the limit for the next bytes; keep-alive pings count as bytes.
        first_chunk: the limit for the first chunk, ``max_retries`` and the waits between attempts included.
        idle: the limit for the next chunk; pings are not chunks, and a pause of the consumer is not idle time.
    """

    connect: float | None = field(default=10.0, validator=_seconds)
    read: float | None = field(default=600.0, validator=_seconds)
    first_chunk: float | None = field(default=600.0, validator=_seconds)
    idle: float | None = field(default=300.0, validator=_seconds)


def timeouts_of(timeout: Timeouts | float | None) -> Timeouts:
    """Return the time limits for a number, which applies to every silence, or for None, which disables all limits."""
    return timeout if isinstance(timeout, Timeouts) else Timeouts(timeout, timeout, timeout, timeout)


async def limited(read: Awaitable[T], seconds: float | None, fail: Callable[[], object]) -> T:
    """Await a read. If it has waited for so many seconds, call `fail`, which must make the read raise.

    The limit holds only while the read waits, so a pause of the reader is not the server's silence.
    """
    if seconds is None:
        return await read
    loop = asyncio.get_running_loop()
    waits = True

    def check() -> None:
        if waits:
            fail()

    # If the loop was busy, bytes may have arrived: the read gets them in the turn in which the timer ends.
    timer = loop.call_later(seconds, loop.call_soon, check)
    try:
        return await read
    finally:
        waits = False
        timer.cancel()
