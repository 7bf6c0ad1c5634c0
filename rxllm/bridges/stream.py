"""Out of Rx into a plain ``for``: `stream`."""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop as Loop
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Never, Self, TypeVar

from reactivex import Observable

from ..misuse import MisuseError
from ..runtime.gate import HIGH, LOW
from ..runtime.loops import in_loop
from ..runtime.portal import portal
from ..runtime.scheduler import Scheduler
from ..runtime.source import expected, source
from ..runtime.threads import Calls, pull
from .sink import Sink

__all__ = ["CallerStream", "SyncStream", "stream"]

T = TypeVar("T")
In = TypeVar("In")


class _Sink(Sink[T]):
    """On the portal's thread, while the consumer waits in its own."""

    __slots__ = ("condition", "jobs", "reopening", "waiting")

    def __init__(self) -> None:
        super().__init__(Scheduler(portal()))
        self.jobs: deque[Callable[[], None]] = deque()
        self.condition = threading.Condition()
        self.waiting = self.reopening = False

    def on_next(self, value: T) -> None:
        items = self.items
        items.append(value)
        if len(items) >= HIGH:
            self.home.gate.close()
            if len(items) <= LOW:  # the consumer was faster than this thread, and did not see it closed
                self.home.gate.open()
        if self.waiting:
            self.wake()

    def on_completed(self) -> None:
        self.over()
        if self.waiting:
            self.wake()

    def wake(self) -> None:
        with self.condition:
            self.waiting = False
            self.condition.notify()

    def wait(self) -> None:
        """Blocks the consumer's thread until there is an item, or the end; meanwhile it does the `jobs`."""
        while not self.items and not self.ended:
            with self.condition:
                # Set before looking: a producer that comes after the look sees it and wakes us.
                self.waiting = True
                while not self.items and not self.ended and not self.jobs:
                    self.condition.wait()
                    self.waiting = True  # who woke us has unset it, and may have been late: look again, then wait
                self.waiting = False
            self.work()

    def work(self) -> None:
        while self.jobs and not self.ended:
            self.jobs.popleft()()

    def reopen(self) -> None:
        self.reopening = False
        self.home.gate.open()


class SyncStream(Iterator[T], Generic[T]):
    """The items of an Observable for a ``for`` loop; one pass, and a context manager.

    Nothing is sent before the first ``next``. `close`, leaving ``with``, ``break`` (which drops the iterator) and
    Ctrl-C close the request. Several streams may be read at once from several threads; one stream by one thread.
    """

    def __init__(self, source: Observable[T]) -> None:
        self._sink: _Sink[T] | None = None
        expected(source)
        self._source: Callable[[_Sink[T]], Observable[T]] | None = lambda _: source

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Never:
        raise MisuseError("This stream is for a plain `for`; here write `async for … in llm.astream(prompt)`.")

    def __next__(self) -> T:
        sink = self._sink or self._start()
        items = sink.items
        if sink.jobs or not items:
            if sink.home.loop is not portal():
                raise MisuseError(
                    "This stream was begun by the parent of this process, and nothing comes of it here; begin another."
                )
            try:
                sink.work()
                sink.wait()
            except BaseException:
                self.close()
                raise
            if not items:
                raise sink.end(StopIteration)
        value = items.popleft()
        if not sink.home.gate.is_open and len(items) <= LOW and not sink.reopening:
            sink.reopening = True
            sink.home.call(sink.reopen)
        return value

    def _start(self) -> _Sink[T]:
        if in_loop(portal()):
            raise MisuseError(
                "A synchronous call on rxllm's own event loop would wait for itself. Inside handlers, operators "
                "and `async def complete` use `await llm.ainvoke(…)` or `async for … in llm.astream(…)`."
            )
        if portal().is_closed():
            raise MisuseError("The interpreter is shutting down; it is too late for a new stream.")
        make, self._source = self._source, None
        if make is None:  # closed before it began
            raise StopIteration
        sink = self._sink = _Sink[T]()

        def subscribe() -> None:
            if not sink.ended:
                sink.begin(lambda: make(sink))

        sink.home.call(subscribe)
        return sink

    def close(self) -> None:
        """Leaves the stream; its request is closed. Idempotent."""
        self._source = None
        if self._sink is not None:
            self._sink.close()
            self._sink.items.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._sink is not None:
            self._sink.close()


class CallerStream(SyncStream[T]):
    """A stream of what `operator` makes of `items`, which are pulled in the thread that reads the stream.

    So a database cursor, which belongs to its thread, is a fine source. While the reader is busy elsewhere, nothing
    is pulled.
    """

    def __init__(self, items: Iterable[In], operator: Callable[[Observable[In]], Observable[T]]) -> None:
        self._source = lambda sink: operator(source(lambda home: pull(_Caller(home.loop, sink), lambda: items)))
        self._sink = None


class _Caller(Calls):
    """The reader's thread, which does a job whenever it waits for an item."""

    def __init__(self, loop: Loop, sink: _Sink[Any]) -> None:
        super().__init__(loop)
        self._sink = sink

    def put(self, job: Callable[[], None]) -> None:
        self._sink.jobs.append(job)
        if self._sink.waiting:
            self._sink.wake()

    def close(self, last: Callable[[], object]) -> None:
        """The items are the caller's own to close."""


def stream() -> Callable[[Observable[T]], SyncStream[T]]:
    """Reads an Observable with a plain ``for`` loop.

    ::

        -a-b---c-|
        for item in source.pipe(stream()): …     a, b, c

    The graph runs on rxllm's background loop; at most 64 items wait for the loop's body, then the source pauses.

    Errors: the Observable's error is raised by ``next``, after the items that came before it. On the background
    loop itself, where it could only wait for itself, it raises `MisuseError`.
    """
    return SyncStream
