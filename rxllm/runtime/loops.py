"""Small facts about event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import Interrupted

__all__ = ["in_loop", "raisable", "report"]


Loop = asyncio.AbstractEventLoop


# The public get_running_loop raises outside of a loop, which takes ten times as long.
running_loop: Callable[[], Loop | None] = asyncio._get_running_loop


def in_loop(loop: Loop) -> bool:
    """Whether this code is running on `loop`."""
    return running_loop() is loop


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
