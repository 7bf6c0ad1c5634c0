"""Blocking code, each in a thread of its own."""

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

__all__ = ["Calls", "Worker", "in_thread", "pull", "result_of"]


class Calls(ABC):
    """Runs blocking calls in another thread, one after another, and brings their results back to the event loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    @abstractmethod
    def put(self, job: Callable[[], None]) -> None:
        """Queue `job` for the thread. The job must not raise."""

    @abstractmethod
    def close(self, last: Callable[[], object]) -> None:
        """Run `last` after all queued jobs, then end."""

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Return the result of `function`, called in the thread. A cancelled caller does not get the result."""
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


async def in_thread(scheduler: Scheduler, function: Callable[[], T]) -> T:
    """Return the result of a blocking function, called in a thread of its own."""
    worker = Worker(scheduler.loop, scheduler.context)
    try:
        return await worker.call(function)
    finally:
        worker.close(lambda: None)


async def result_of(scheduler: Scheduler, function: Callable[..., Any], argument: object) -> AsyncIterator[Any]:
    """Yield the result of a user's function. If it is not ``async def``, call it in a thread."""
    if inspect.iscoroutinefunction(function):
        yield await function(argument)
    else:
        result = await in_thread(scheduler, lambda: function(argument))
        yield await result if inspect.isawaitable(result) else result


async def pull(calls: Calls, make: Callable[[], Iterable[T]]) -> AsyncIterator[T]:
    """Yield the items of the blocking iterable that `make` returns.

    `calls` advances the iterable, and closes it if it is a generator.
    """
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
