"""Blocking code, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

from ..misuse import MisuseError
from .executor import EXECUTOR, start_thread
from .loops import Loop, do_nothing, expect, raisable
from .scheduler import Scheduler, T
from .source import Source, source

__all__ = ["Calls", "Worker", "from_thread", "in_thread", "pull", "result_of"]

_CANCELLED = "A blocking function raised CancelledError, so its result is missing."


class Calls(ABC):
    """Runs blocking calls in another thread, one after another, and brings their results back to the event loop."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    @abstractmethod
    def put(self, job: Callable[[], None]) -> None:
        """Queue `job` for the thread. The job must not raise."""

    @abstractmethod
    def close(self, last: Callable[[], object]) -> None:
        """Run `last` after all queued jobs, then end."""

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Return the result of `function`, called in the thread. A cancelled caller does not get the result."""
        outcome: asyncio.Future[T] = expect(self.loop.create_future())

        def settle(result: T | None, error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is None:
                outcome.set_result(cast("T", result))
            else:
                outcome.set_exception(raisable(error, _CANCELLED))

        def job() -> None:
            result, error = None, None
            try:
                result = function(*arguments)
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(settle, result, error)

        self.put(job)
        return await outcome


class Worker(Calls):
    """A daemon thread of its own for blocking calls, in a copy of the given context.

    A pool would deadlock: nested calls would take its last thread and wait for each other. A blocking call cannot be
    cancelled; only its result is dropped.
    """

    def __init__(self, loop: Loop, context: contextvars.Context) -> None:
        super().__init__(loop)
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        start_thread("rxllm-worker", functools.partial(context.copy().run, self._run))

    def put(self, job: Callable[[], None]) -> None:  # noqa: D102  (of Calls)
        self._jobs.put(job)

    def close(self, last: Callable[[], object]) -> None:  # noqa: D102  (of Calls)
        self._jobs.put(last)
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class _Pooled(Calls):
    """Runs short calls in threads that exist, because some Pythons start no new thread at the end of the process.

    A call must not wait for another one, because there may be one thread only.
    """

    def put(self, job: Callable[[], None]) -> None:
        EXECUTOR.submit(job)

    def close(self, last: Callable[[], object]) -> None:
        EXECUTOR.submit(last)


async def in_thread(scheduler: Scheduler, function: Callable[[], T]) -> T:
    """Return the result of a blocking function, called in a thread of its own."""
    return await _only_call(Worker(scheduler.loop, scheduler.context), function)


async def _only_call(calls: Calls, function: Callable[[], T]) -> T:
    try:
        return await calls.call(function)
    finally:
        calls.close(do_nothing)


def from_thread(function: Callable[[], T]) -> Source[T]:
    """Return an Observable that calls a function of rxllm in a thread, and emits its result.

    The function may block, but only for a short time.
    """

    async def result(scheduler: Scheduler) -> AsyncIterator[T]:
        calls: Calls
        try:
            calls = Worker(scheduler.loop, scheduler.context)
        except (MisuseError, RuntimeError):
            calls = _Pooled(scheduler.loop)
        yield await _only_call(calls, function)

    return source(result)


async def result_of(scheduler: Scheduler, function: Callable[..., Any], argument: object) -> AsyncIterator[Any]:
    """Yield the result of a user's function. If it is not ``async def``, call it in a thread."""
    if inspect.iscoroutinefunction(function):
        yield await function(argument)
    else:
        result = await in_thread(scheduler, lambda: function(argument))
        yield await result if inspect.isawaitable(result) else result


async def pull(scheduler: Scheduler, make: Callable[[], Iterable[T]], calls: Calls | None = None) -> AsyncIterator[T]:
    """Yield the items of the blocking iterable that `make` returns, each as soon as it has come.

    One thread, that of `calls`, advances the iterable, and closes it if it is a generator. It reads as many items at a
    time as there is room for behind the gate, because to ask another thread takes longer than to read most items.
    """
    gate, calls = scheduler.gate, calls or Worker(scheduler.loop, scheduler.context)
    pulling = _Pulling(calls, make)
    due = 0  # items that the other thread was asked for, and that were not taken
    try:
        calls.put(pulling.begin)
        while True:
            if not due:
                due = pulling.left = gate.room
                calls.put(pulling.step)
            item = await pulling.taken()
            if isinstance(item, _End):
                break
            due -= 1
            yield item
    finally:
        calls.close(pulling.close)
    if item.error is not None:
        raise raisable(item.error, _CANCELLED)


class _End:
    """Arrives after the last item."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Pulling:
    """The two sides of `pull`: the other thread appends to `arrived`, and the event loop removes from it.

    Both operations of a deque are atomic. The event loop publishes a future in `waiter` before it looks at `arrived`
    for the last time, and the other thread looks at `waiter` after each item, so one of them sees the other.

    Attributes:
        left: the number of items that the other thread must read. The event loop sets it while the other thread rests.
    """

    def __init__(self, calls: Calls, make: Callable[[], Iterable[Any]]) -> None:
        self.calls = calls
        self.make = make
        self.iterator: Iterator[Any] = iter(())
        self.arrived: deque[Any] = deque()
        self.left = 0
        self.waiter: asyncio.Future[None] | None = None
        self.woken: asyncio.Future[None] | None = None  # the last waiter that was woken
        self.is_closed = False

    async def taken(self) -> Any:
        """Return the next item when it has arrived."""
        if not self.arrived:
            self.waiter = waiter = expect(self.calls.loop.create_future())
            if not self.arrived:
                await waiter
            self.waiter = None
        return self.arrived.popleft()

    def begin(self) -> None:
        """Begin the iteration, in the other thread."""
        try:
            self.iterator = iter(self.make())
        except BaseException as error:
            self.add(_End(error))

    def step(self) -> None:
        """Read an item, in the other thread, which may do something else before the next one."""
        if self.is_closed:
            return
        try:
            item = next(self.iterator)
        except StopIteration:
            item = _End()
        except BaseException as error:
            item = _End(error)
        else:
            self.left -= 1
            if self.left:
                self.calls.put(self.step)
        self.add(item)

    def add(self, item: Any) -> None:
        """Add an item, and wake the event loop if it waits."""
        self.arrived.append(item)
        waiter = self.waiter
        if waiter is not None and waiter is not self.woken:
            self.woken = waiter
            with suppress(RuntimeError):  # the loop is closed
                self.calls.loop.call_soon_threadsafe(_wake, waiter)

    def close(self) -> None:
        """Close the iterable, in the other thread."""
        iterator: Any = self.iterator
        if isinstance(iterator, Generator):
            iterator.close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # its subscription was disposed
        waiter.set_result(None)
