"""Small facts about event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import Interrupted

__all__ = ["clock_of", "expect", "in_loop", "raisable", "report"]


Loop = asyncio.AbstractEventLoop
T = TypeVar("T")


# The public get_running_loop raises outside of a loop, which takes ten times as long.
running_loop: Callable[[], Loop | None] = asyncio._get_running_loop


def in_loop(loop: Loop) -> bool:
    """Whether this code is running on `loop`."""
    return running_loop() is loop


def clock_of(loop: Loop) -> Callable[[], float]:
    """Gives the loop's time.

    A loop whose clock is the machine's is not asked: that would take twice as long, and each chunk needs the time. A
    class of loops that overrides asyncio's ``time`` in Python has a clock of its own, as on virtual time.
    """
    has_own = getattr(loop.time, "__func__", asyncio.BaseEventLoop.time) is not asyncio.BaseEventLoop.time
    return loop.time if has_own else time.monotonic


def expect(outcome: asyncio.Future[T]) -> asyncio.Future[T]:
    """Tells a loop on virtual time that another thread will bring this result; the same future."""
    announce = getattr(outcome.get_loop(), "expect", None)
    if announce is not None:
        announce(outcome)
    return outcome


def do_nothing() -> None:
    """Nothing is held."""


def report(loop: Loop, message: str, error: BaseException) -> None:
    """Tells the loop's exception handler, which logs unless the program has set another."""
    loop.call_exception_handler({"message": message, "exception": error})


def raisable(error: BaseException) -> BaseException:
    """The error as an iterator or a future may raise it.

    An end of iteration would pass for the end of the stream, and a cancellation for that of who reads it.
    """
    if isinstance(error, (StopIteration, StopAsyncIteration)):
        other = RuntimeError(f"{type(error).__name__} was raised outside of an iterator.")
        other.__cause__ = error
        return other
    if isinstance(error, asyncio.CancelledError):
        return Interrupted("The event loop of the stream ended before it did.")
    return error
