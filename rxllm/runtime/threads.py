"""Blocking code in threads of its own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

from .executor import start_thread
from .loops import Loop, expect, raisable
from .scheduler import Scheduler, T

__all__ = ["Calls", "Worker", "called", "in_thread", "pull"]


class Calls(ABC):
    """Blocking calls that another thread makes, one after another; their results come back to the loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    @abstractmethod
    def put(self, job: Callable[[], None]) -> None:
        """Has the thread do `job`, which raises nothing."""

    @abstractmethod
    def close(self, last: Callable[[], object]) -> None:
        """There will be no more calls; `last` cleans up after them."""

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """The result of `function` in the thread. Who is gone by then is not told."""
        outcome: asyncio.Future[T] = expect(self._loop.create_future())

        def settle(result: T | None, error: BaseException | None) -> None:
            if outcome.done():
                return
            if error is None:
                outcome.set_result(cast("T", result))
            else:
                outcome.set_exception(raisable(error))

        def job() -> None:
            result, error = None, None
            try:
                result = function(*arguments)
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(settle, result, error)

        self.put(job)
        return await outcome


class Worker(Calls):
    """A daemon thread of its own for blocking calls, in a copy of the given context.

    Never a pool: nested calls would take a pool's last thread and wait for each other. What blocks can't be stopped.
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


async def in_thread(scheduler: Scheduler, function: Callable[[], T]) -> T:
    """The result of blocking `function`, run in a thread of its own."""
    worker = Worker(scheduler.loop, scheduler.context)
    try:
        return await worker.call(function)
    finally:
        worker.close(lambda: None)


async def called(scheduler: Scheduler, function: Callable[..., Any], argument: object) -> AsyncIterator[Any]:
    """The result of a function of one's own: awaited if it is ``async def``, else made in a thread, as it may block."""
    if inspect.iscoroutinefunction(function):
        yield await function(argument)
    else:
        result = await in_thread(scheduler, lambda: function(argument))
        yield await result if inspect.isawaitable(result) else result


async def pull(calls: Calls, make: Callable[[], Iterable[T]]) -> AsyncIterator[T]:
    """The items of blocking `make()`, which is advanced item by item, and closed if it is a generator, by `calls`."""
    end = cast("T", object())
    iterator: Iterator[T] | None = None

    def close() -> None:
        if isinstance(iterator, Generator):
            iterator.close()

    try:
        iterator = await calls.call(lambda: iter(make()))
        source = iterator
        while (item := await calls.call(lambda: next(source, end))) is not end:
            yield item
    finally:
        calls.close(close)
