"""Small functions about event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import Interrupted

__all__ = ["clock_of", "expect", "in_loop", "raisable", "report"]


Loop = asyncio.AbstractEventLoop
T = TypeVar("T")


# The public asyncio.get_running_loop raises outside of a loop, which takes ten times as long.
running_loop: Callable[[], Loop | None] = asyncio._get_running_loop


def in_loop(loop: Loop) -> bool:
    """Return whether this code runs on `loop`."""
    return running_loop() is loop


def clock_of(loop: Loop) -> Callable[[], float]:
    """Return a function that gives the loop's time.

    It is ``time.monotonic`` unless the loop's class overrides asyncio's ``time`` in Python, as a loop on virtual time
    does. ``loop.time`` takes twice as long, and each chunk needs the time.
    """
    has_own = getattr(loop.time, "__func__", asyncio.BaseEventLoop.time) is not asyncio.BaseEventLoop.time
    return loop.time if has_own else time.monotonic


def expect(outcome: asyncio.Future[T]) -> asyncio.Future[T]:
    """Announce to a loop on virtual time that another thread will set this future; return the future."""
    announce = getattr(outcome.get_loop(), "expect", None)
    if announce is not None:
        announce(outcome)
    return outcome


def do_nothing() -> None:
    """Do nothing."""


def report(loop: Loop, message: str, error: BaseException) -> None:
    """Pass the error to the loop's exception handler, which logs it unless the program has set another handler."""
    loop.call_exception_handler({"message": message, "exception": error})


def raisable(
    error: BaseException, cancelled: str = "The event loop of the stream ended before the stream did."
) -> BaseException:
    """Return the error in a form that an iterator or a future may raise.

    A StopIteration would look like the end of the stream, and a CancelledError like a cancellation of the reader.

    Args:
        error: the error.
        cancelled: the message of the error in place of a CancelledError.
    """
    if isinstance(error, (StopIteration, StopAsyncIteration)):
        other = RuntimeError(f"{type(error).__name__} was raised by code that is not an iterator.")
        other.__cause__ = error
        return other
    if isinstance(error, asyncio.CancelledError):
        return Interrupted(cancelled)
    return error
