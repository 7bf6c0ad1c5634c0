"""Out of Rx into ``async for``: `astream`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from threading import get_ident
from types import TracebackType
from typing import Generic, Self, TypeVar

from reactivex import Observable

from ..misuse import MisuseError
from ..runtime.gate import HIGH, LOW, Gate
from ..runtime.loops import in_loop
from ..runtime.scheduler import Scheduler, settled
from ..runtime.source import expected
from .sink import Sink

__all__ = ["AsyncStream", "astream"]

T = TypeVar("T")


class _Sink(Sink[T]):
    """Any thread may write; gate and waiter belong to the loop."""

    __slots__ = ("gate", "reader", "thread", "waiter")

    def __init__(self, reader: asyncio.Task[object] | None) -> None:
        super().__init__(Scheduler(asyncio.get_running_loop()))
        self.gate: Gate = self.home.gate
        self.thread = get_ident()
        self.waiter: asyncio.Future[None] | None = None
        self.reader = reader
        if reader is not None:
            reader.add_done_callback(self.deserted)

    def on_next(self, value: T) -> None:
        items = self.items
        items.append(value)
        if self.waiter is not None:
            self.wake()
        elif len(items) >= HIGH:
            self.gate.close()
            if len(items) <= LOW:  # the reader was faster than this thread, and did not see it closed
                self.gate.open()

    def on_completed(self) -> None:
        self.over()
        if self.waiter is not None:
            self.wake()
        self.home.call(self.let_go)

    def let_go(self) -> None:
        if self.reader is not None:
            self.reader.remove_done_callback(self.deserted)
            self.reader = None

    def deserted(self, reader: asyncio.Task[object]) -> None:
        """Leaves when the task that reads was cancelled: its traceback may hold the iterator for long."""
        if reader.cancelled():
            self.close()

    def wake(self) -> None:
        if get_ident() == self.thread:
            self.rouse()
        else:
            self.home.call(self.rouse)

    def rouse(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        """Done when there is an item, or the end. Cancelling it loses nothing: items stay where they are."""
        if self.waiter is not None and not self.waiter.done():
            raise MisuseError("Two tasks wait for the next item of one stream; give each its own, or share the items.")
        waiter = self.waiter = self.home.loop.create_future()
        if self.items or self.ended:  # another thread came after the look, and saw nobody wait
            self.rouse()
        return waiter


class AsyncStream(AsyncIterator[T], Generic[T]):
    """The items of an Observable for ``async for``; one pass, and an async context manager.

    Nothing is sent before the first ``anext``. `aclose`, leaving ``async with``, ``break`` (which drops the iterator)
    and the end of a cancelled task close the request. A cancelled ``anext`` alone, as of ``asyncio.wait_for``, loses
    nothing: the next one goes on.
    """

    def __init__(self, source: Observable[T]) -> None:
        self._sink: _Sink[T] | None = None
        self._source: Observable[T] | None = expected(source)
        self._reader: asyncio.Task[object] | None = None

    def __aiter__(self) -> Self:
        self._reader = asyncio.current_task()
        return self

    async def __anext__(self) -> T:
        sink = self._sink or self._start()
        items = sink.items
        while not items:
            if sink.ended and not items:  # another thread may have put the last one meanwhile
                await settled(sink.home.beside)  # of handlers, which may need this loop
                raise sink.end(StopAsyncIteration)
            try:
                await sink.wait()
            except RuntimeError:
                if in_loop(sink.home.loop):
                    raise
                raise MisuseError("This stream was begun on another event loop; make a new one here.") from None
        value = items.popleft()
        if not sink.gate.is_open and len(items) <= LOW:
            sink.gate.open()
        return value

    def _start(self) -> _Sink[T]:
        source, self._source = self._source, None
        if source is None:  # closed before it began
            raise StopAsyncIteration
        sink = self._sink = _Sink[T](self._reader)
        sink.begin(lambda: source)
        return sink

    async def aclose(self) -> None:
        """Leaves the stream, and returns when its request is closed. Idempotent."""
        self._source = None
        if self._sink is not None:
            home = self._sink.home
            self._sink.items.clear()
            if in_loop(home.loop):
                self._sink.dispose()
                await settled(home.tasks | home.beside)
            else:  # such as the portal's in a test's teardown; that loop may be busy, or closed, so nobody waits for it
                self._sink.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._sink is not None:
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
