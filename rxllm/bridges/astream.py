"""Out of Rx into ``async for``: `astream`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from threading import get_ident
from types import TracebackType
from typing import Any, Generic, Never, Self, TypeVar

from reactivex import Observable

from ..misuse import MisuseError
from ..runtime.gate import HIGH_WATER, LOW_WATER, Gate
from ..runtime.lifetime import settled
from ..runtime.loops import in_loop
from ..runtime.scheduler import Scheduler
from ..runtime.source import expected
from .sink import Sink

__all__ = ["AsyncStream", "astream"]

T = TypeVar("T")


class _Sink(Sink[T]):
    """Any thread may write; gate and waiter belong to the loop."""

    __slots__ = ("gate", "reader", "thread", "waiter")

    gate: Gate
    thread: int

    def __init__(self, make: Callable[[], Observable[T]]) -> None:
        super().__init__(make)
        self.waiter: asyncio.Future[None] | None = None
        self.reader: asyncio.Task[object] | None = None

    def start(self) -> None:
        make, self.make = self.make, None
        if make is None:  # closed before it began
            return
        self.scheduler = Scheduler(asyncio.get_running_loop())
        self.scheduler.lifetime.on_failure = self.fail
        self.gate = self.scheduler.gate
        self.thread = get_ident()
        if self.reader is not None:
            self.reader.add_done_callback(self.deserted)
        self.begin(make)

    async def next(self) -> T:
        """The next item, once it is there."""
        items = self.items
        while not items:
            if self.make is not None:
                self.start()
                continue
            if self.ended and not items:  # another thread may have put the last one meanwhile
                if hasattr(self, "scheduler"):
                    await settled(self.scheduler.lifetime.handler_tasks)  # of handlers, which may need this loop
                raise self.end(StopAsyncIteration)
            try:
                await self.wait()
            except RuntimeError:
                if in_loop(self.scheduler.loop):
                    raise
                raise MisuseError("This stream was begun on another event loop; make a new one here.") from None
        value = items.popleft()
        if not self.gate.is_open and len(items) <= LOW_WATER:
            self.gate.open()
        return value

    def on_next(self, value: T) -> None:
        items = self.items
        items.append(value)
        if self.waiter is not None:
            self.wake()
        elif len(items) >= HIGH_WATER:
            self.gate.close()
            if len(items) <= LOW_WATER:  # the reader was faster than this thread, and did not see it closed
                self.gate.open()

    def on_completed(self) -> None:
        self.over()
        if self.waiter is not None:
            self.wake()
        self.scheduler.call(self.forget_reader)

    def forget_reader(self) -> None:
        if self.reader is not None:
            self.reader.remove_done_callback(self.deserted)
            self.reader = None

    def deserted(self, reader: asyncio.Task[object]) -> None:
        """Closes the stream when its reading task was cancelled: that task's frames may hold the stream for long."""
        if reader.cancelled() and not self.ended:
            self.close()

    def wake(self) -> None:
        if get_ident() == self.thread:
            self.rouse()
        else:
            self.scheduler.call(self.rouse)

    def rouse(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """Done when there is an item, or the end. Cancelling it loses nothing: items stay where they are."""
        if self.waiter is not None and not self.waiter.done():
            raise MisuseError("Two tasks wait for the next item of one stream; give each its own, or share the items.")
        waiter = self.waiter = self.scheduler.loop.create_future()
        if self.items or self.ended:  # another thread came after the look, and saw nobody wait
            self.rouse()
        return waiter


class AsyncStream(AsyncIterator[T], Generic[T]):
    """The items of an Observable for ``async for``; one pass, and an async context manager.

    Nothing is sent before the first ``anext``. `aclose`, leaving ``async with``, ``break`` or an exception (which drop
    the iterator) and the end of a cancelled task close the request. A cancelled ``anext`` alone, as of
    ``asyncio.wait_for``, loses nothing: the next one goes on.
    """

    def __init__(self, source: Observable[T]) -> None:
        expected(source)
        self._sink = _Sink[T](lambda: source)

    def __aiter__(self) -> Self:
        if self._sink.make is not None:
            self._sink.reader = asyncio.current_task()
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._sink.next()  # whose frame does not hold this stream

    def __iter__(self) -> Never:
        raise MisuseError("This stream is for `async for`; in a plain `for` write `for … in llm.stream(prompt)`.")

    def __await__(self) -> Never:
        raise MisuseError(
            "A stream is not awaited: write `async for … in llm.astream(prompt)`, or for the whole answer "
            "`await llm.ainvoke(prompt)`."
        )

    def __enter__(self) -> Never:
        raise MisuseError("This stream is for `async with`; in a plain `with` write `with llm.stream(prompt) as …`.")

    def __exit__(self, *_: object) -> None:
        """Without it a plain ``with`` would not get as far as the sentence."""

    async def aclose(self) -> None:
        """Closes the stream, and returns when its request is closed. Idempotent."""
        sink = self._sink
        sink.items.clear()
        if sink.make is not None:
            sink.cancel()
        elif hasattr(sink, "scheduler"):
            if in_loop(sink.scheduler.loop):
                sink.dispose()
                await settled(sink.scheduler.lifetime.tasks | sink.scheduler.lifetime.handler_tasks)
            elif not sink.ended:  # its loop may be busy, or closed, so nobody waits for it
                sink.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if hasattr(self, "_sink") and hasattr(self._sink, "scheduler") and not self._sink.ended:
            self._sink.close()


def astream() -> Callable[[Observable[T]], AsyncStream[T]]:
    """Reads an Observable with ``async for``, on the running loop.

    ::

        -a-b---c-|
        async for item in source.pipe(astream()): …     a, b, c

    At most 64 items wait for the loop's body, then the source pauses.

    Errors: the Observable's error is raised by ``anext``, after the items that came before it.
    """
    return AsyncStream
