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

from ..misuse import MisuseError
from .executor import EXECUTOR, start_thread
from .loops import Loop, do_nothing, expect, raisable
from .scheduler import Scheduler, T
from .source import Source, source

__all__ = ["Calls", "Worker", "from_thread", "in_thread", "pull", "result_of"]


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
