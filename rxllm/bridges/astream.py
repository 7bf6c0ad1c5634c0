"""Out of Rx into ``async for``: `astream`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from threading import get_ident
from types import TracebackType
from typing import Any, Generic, Never, NoReturn, Self, TypeVar

from reactivex import Observable

from ..misuse import MisuseError
from ..notebook import in_notebook
from ..runtime.gate import HIGH_WATER, LOW_WATER, Gate
from ..runtime.lifetime import settled
from ..runtime.loops import Loop, in_loop, running_loop
from ..runtime.scheduler import Scheduler
from ..runtime.source import check_observable
from ..runtime.wakeups import Wakeup
from .sink import Sink

__all__ = ["AsyncStream", "astream"]

T = TypeVar("T")

_HEARTBEAT = 0.25  # seconds


class _Roused(Exception):
    """The wait for an item was ended by `rouse`."""


class _Sink(Sink[T]):
    """The sink of an async stream. Any thread may write items; only the loop's thread changes gate, waiter and reader.

    Attributes:
        waiter: the wake-up of the task that waits for the next item; None if no task waits.
        reader: the task whose ``async for`` began the stream.
        thread: the thread of the loop.
    """

    __slots__ = ("gate", "reader", "thread", "waiter")

    gate: Gate
    thread: int

    def __init__(self, make: Callable[[], Observable[T]]) -> None:
        super().__init__(make)
        self.waiter: Wakeup | None = None
        self.reader: asyncio.Task[object] | None = None

    def start(self) -> None:
        make, self.make = self.make, None
        if make is None:  # the stream was closed before it began
            return
        self.scheduler = Scheduler(_this_loop())
        self.scheduler.lifetime.on_failure = self.fail
        self.gate = self.scheduler.gate
        self.thread = get_ident()
        if self.reader is not None:
            self.reader.add_done_callback(self.reader_done, context=self.scheduler.context)
        if in_notebook():
            self.wake_loop()
        self.begin(make)

    def wake_loop(self) -> None:
        """Wake the event loop now and then. ipykernel acts on an interrupt of a cell only when its loop wakes."""
        if not self.ended:
            self.scheduler.loop.call_later(_HEARTBEAT, self.wake_loop)

    async def next(self) -> T:
        """Return the next item; wait until it arrives."""
        items = self.items
        try:
            while not items:
                await self.more()
        except RuntimeError:
            self.check_loop()
            raise
        value = items.popleft()
        if not self.gate.is_open and len(items) <= LOW_WATER:
            self.gate.open()
        return value

    async def burst(self) -> list[T]:
        """Return all items that have arrived; wait until there is one, or until `rouse` is called."""
        items = self.items
        try:
            while not items:
                await self.more()
        except _Roused:
            return []
        except RuntimeError:
            self.check_loop()
            raise
        burst = [items.popleft()]
        while items:
            burst.append(items.popleft())
        if not self.gate.is_open:
            self.gate.open()
        return burst

    def more(self) -> Awaitable[None]:
        """Begin a new stream. Return what is done at the next item; at the end, it raises. Cancelling it loses no item.

        A stream waits for nearly each token, so this method makes no coroutine while more items may come.
        """
        if self.make is not None:
            self.start()
        if self.ended and not self.items:  # in this order: another thread may have added the last item meanwhile
            return self.stop()
        if self.waiter is not None and not self.waiter.done():
            raise MisuseError(
                "Two tasks wait for the next item of the same stream. Make a stream for each task, or read in one task."
            )
        waiter = self.waiter = Wakeup(self.scheduler.loop)
        if self.items or self.ended:  # another thread wrote after the check, and saw no waiter
            self.wake()
        return waiter

    def check_loop(self) -> None:
        """Raise an error if this is not the stream's event loop. It is for the error that asyncio raises then.

        To ask each time for the running loop would take as long as the rest of `more`: Python 3.11 asks the kernel.
        """
        if hasattr(self, "scheduler") and not in_loop(self.scheduler.loop):
            raise MisuseError("This stream was begun on another event loop. Make a new one here.") from None

    async def stop(self) -> NoReturn:
        """Raise the stream's error, or StopAsyncIteration."""
        if hasattr(self, "scheduler"):
            await settled(self.scheduler.lifetime.handler_tasks)  # async handlers may need this loop
        raise self.end(StopAsyncIteration)

    def on_next(self, value: T) -> None:
        items = self.items
        items.append(value)
        if self.waiter is not None:
            self.notify()
        elif len(items) >= HIGH_WATER and self.gate.is_open:
            self.gate.close()
            if len(items) <= LOW_WATER:  # the reader was faster than this thread, and did not see the gate closed
                self.gate.open()

    def on_completed(self) -> None:
        self.finish()
        if self.waiter is not None:
            self.notify()
        self.scheduler.call(self.release_reader)

    def release_reader(self) -> None:
        if self.reader is not None:
            self.reader.remove_done_callback(self.reader_done)
            self.reader = None

    def reader_done(self, reader: asyncio.Task[object]) -> None:
        """Close the stream if its reading task was cancelled, since the frames of that task may keep it alive."""
        if reader.cancelled() and not self.ended:
            self.close()

    def notify(self) -> None:
        if get_ident() == self.thread:
            self.wake()
        else:
            self.scheduler.call(self.wake)

    def wake(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.set_result(None)

    def rouse(self) -> None:
        """Let a waiting `burst` return without items."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.set_exception(_Roused())


class AsyncStream(AsyncIterator[T], Generic[T]):
    """The items of an Observable for ``async for``; a one-shot iterator and an async context manager.

    The request is sent at the first ``anext``. It is closed by `aclose`, by leaving ``async with``, by ``break`` or an
    exception (which drop the iterator), and at the end of a cancelled task. If only one ``anext`` is cancelled, as by
    ``asyncio.wait_for``, no item is lost: the next ``anext`` continues.
    """

    def __init__(self, source: Observable[T]) -> None:
        check_observable(source)
        self._sink: _Sink[T] = _Sink(lambda: source)

    def __repr__(self) -> str:
        return "<AsyncStream; to read it: async for item in …>"

    def __aiter__(self) -> Self:
        if self._sink.make is not None:
            self._sink.reader = asyncio.current_task(_this_loop())
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._sink.next()  # a coroutine of the sink, whose frame does not hold this stream

    def _take(self) -> Observable[T]:
        return self._sink.take()

    def burst(self) -> Coroutine[Any, Any, list[T]]:
        """Return all items that have arrived; wait until there is at least one.

        Errors: as ``anext``; StopAsyncIteration at the end.
        """
        return self._sink.burst()

    def rouse(self) -> None:
        """Let a `burst` that waits return an empty list. Call it on the stream's event loop."""
        self._sink.rouse()

    def __iter__(self) -> Never:
        raise MisuseError("This stream is for `async for`. In a plain `for` write `for … in llm.stream(prompt)`.")

    def __await__(self) -> Never:
        raise MisuseError(
            "A stream cannot be awaited. Write `async for … in llm.astream(prompt)`, or for the whole answer "
            "`await llm.ainvoke(prompt)`."
        )

    def __enter__(self) -> Never:
        raise MisuseError("This stream is for `async with`. In a plain `with` write `with llm.stream(prompt) as …`.")

    def __exit__(self, *_: object) -> None:
        """Exist, so that a plain ``with`` reaches `__enter__` and its error."""

    async def aclose(self) -> None:
        """Close the stream, and return when its request is closed. Idempotent."""
        sink = self._sink
        sink.items.clear()
        if sink.make is not None:
            sink.cancel()
        elif hasattr(sink, "scheduler"):
            if in_loop(sink.scheduler.loop):
                sink.dispose()
                await settled(sink.scheduler.lifetime.tasks | sink.scheduler.lifetime.handler_tasks)
            elif not sink.ended:  # its loop may be busy or closed, so this call does not wait
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


def _this_loop() -> Loop:
    loop = running_loop()
    if loop is None:
        raise MisuseError(
            "There is no asyncio event loop here, and rxllm's asynchronous methods need one. Under another library, as "
            "trio, call the synchronous method in a thread: trio.to_thread.run_sync(llm.invoke, prompt)."
        )
    return loop


def astream() -> Callable[[Observable[T]], AsyncStream[T]]:
    """Read an Observable with ``async for``, on the running loop.

    ::

        -a-b---c-|
        async for item in source.pipe(astream()): …     a, b, c

    At most 64 items are buffered for the loop's body, then the source pauses.

    Errors: ``anext`` raises the Observable's error, after the items that came before it.
    """
    return AsyncStream
