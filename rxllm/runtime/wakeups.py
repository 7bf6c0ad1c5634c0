"""`Wakeup`: a future whose task goes on in the same turn of the event loop.

A token passes through two tasks: one reads the connection, the other one is the reader's. Before each of them, asyncio
makes a turn: it asks the kernel for events, and goes through its queues. For a token with a packet of its own, the two
turns take a tenth of the client's CPU. So `in_one_turn` resumes both tasks as soon as the packet is parsed.

The tasks do not notice. Each is asyncio's current task meanwhile, and runs in its own context.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextvars import Context
from typing import NoReturn, TypeVar, cast

__all__ = ["Wakeup", "in_one_turn"]

A = TypeVar("A")


class Wakeup:
    """An object that one task awaits, once. Within `in_one_turn`, the task goes on at its end, else in the next turn.

    It has those methods and attributes of a future that tasks and aiohttp use. asyncio lets a task await any object
    with them, and with ``_asyncio_future_blocking``:
    https://docs.python.org/3/library/asyncio-future.html#asyncio.isfuture.
    A subclass of Future takes as much CPU as the turns do.
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_is_done", "_loop", "_outcome", "_resume")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_done = False
        self._outcome: BaseException | None = None
        self._resume: Callable[[asyncio.Future[None]], object] | None = None
        self._asyncio_future_blocking = False

    def __await__(self) -> Generator[Wakeup, None, None]:
        if not self._is_done:
            self._asyncio_future_blocking = True  # tells the task that this is not a bare `yield`
            yield self
        if self._outcome is not None:
            try:
                raise self._outcome
            finally:
                self._outcome = None  # else the error keeps this frame, and this frame the error

    def add_done_callback(self, callback: Callable[[asyncio.Future[None]], object], *, context: Context) -> None:
        """Keep the function by which asyncio resumes the task, instead of giving it to the event loop."""
        self._resume, self._context = callback, context

    def done(self) -> bool:
        """Return whether the task is awake."""
        return self._is_done

    def set_result(self, _: None) -> None:
        """Wake the task. A task that is awake already stays as it is."""
        if self._is_done:
            return
        self._is_done = True
        woken = _turn.woken
        if woken is None:
            self.resume_soon()
        else:
            woken.append(self)

    def set_exception(self, exception: BaseException) -> None:
        """Raise the exception in the task, in the next turn. A task that is awake already stays as it is."""
        if self._is_done:
            return
        self._is_done = True
        self._outcome = exception
        self.resume_soon()

    def cancel(self, msg: object = None) -> bool:
        """Raise CancelledError in the task, in the next turn. Return False if it is awake already."""
        if self._is_done:
            return False
        self.set_exception(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True

    def resume(self) -> None:
        """Resume the task now. Only the event loop itself may be running, and no other task."""
        resume, self._resume = self._resume, None
        if resume is not None:
            try:
                self._context.run(resume, _AWAKE)
            except BaseException as error:  # SystemExit, KeyboardInterrupt: they end the loop, and not the connection
                self._loop.call_soon(_raise, error)

    def resume_soon(self) -> None:
        """Resume the task in the next turn."""
        resume, self._resume = self._resume, None  # else a cancelled task keeps this object, and this object the task
        if resume is not None:
            self._loop.call_soon(resume, _AWAKE, context=self._context)


class _NoLoop:
    """The event loop of a future that never calls one."""

    def get_debug(self) -> bool:
        return False


# A task asks what resumes it for its result. It reads a real future without a call in Python.
_AWAKE: asyncio.Future[None] = asyncio.Future(loop=cast("asyncio.AbstractEventLoop", _NoLoop()))
_AWAKE.set_result(None)


class _Turn(threading.local):
    woken: list[Wakeup] | None = None


_turn = _Turn()


def in_one_turn(parse: Callable[[A], object], data: A, loop: asyncio.AbstractEventLoop) -> None:
    """Call `parse`; then resume the tasks that it has woken, and then the tasks that those have woken.

    The last tasks are the program's. Those that they wake go on in the next turn: the program may run for long, or run
    its event loop within the task.
    """
    if asyncio.current_task(loop) is not None:  # asyncio resumes no task within another one
        parse(data)
        return
    woken = _turn.woken = []
    try:
        parse(data)
        count = len(woken)
        for wakeup in woken[:count]:
            wakeup.resume()
    finally:
        _turn.woken = None
    for wakeup in woken[count:]:
        wakeup.resume()


def _raise(error: BaseException) -> NoReturn:
    raise error
