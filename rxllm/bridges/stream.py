"""Out of Rx into a plain ``for``: `stream`."""

from __future__ import annotations

import functools
import queue
import weakref
from asyncio import AbstractEventLoop as Loop
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Never, Self, TypeVar

from reactivex import Observable

from ..misuse import MisuseError
from ..runtime.gate import HIGH_WATER, LOW_WATER
from ..runtime.interrupts import close_elsewhere, wait_for, when_dropped
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
    """Written on the portal's thread, and read in a thread that Ctrl-C may interrupt between any two steps.

    So the reader takes no lock and leaves nothing half done. It waits at a queue, sets one flag, and a stream that it
    drops is closed by another thread.

    Attributes:
        waiting: set by the reader before it looks whether something has come, unset by the thread that wakes it.
        bell: what wakes the reader; a ring too many does no harm.
        jobs: what the reader is to do while it waits.
        stream: what the program holds.
    """

    __slots__ = ("bell", "dropped", "jobs", "reopening", "stream", "waiting")

    stream: weakref.ref[SyncStream[T]]

    def __init__(self, make: Callable[[], Observable[T]]) -> None:
        super().__init__(make)
        self.jobs: deque[Callable[[], None]] = deque()
        self.bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.waiting = self.reopening = False
        self.dropped: object = None

    def next(self) -> T:
        """The next item, once it is there. No frame from here on holds the stream."""
        items = self.items
        try:
            if self.jobs or not items:
                self.wait()
            if items:
                value = items.popleft()
                if not self.scheduler.gate.is_open and len(items) <= LOW_WATER and not self.reopening:
                    self.reopening = True
                    self.scheduler.call(self.reopen)
                return value
        except BaseException:
            self.leave()
            raise
        raise self.end(StopIteration)

    def wait(self) -> None:
        """Blocks the reader until there is an item, or the end; meanwhile it does the `jobs`."""
        make, self.make = self.make, None
        if hasattr(self, "scheduler"):
            if self.scheduler.loop is not portal():
                raise MisuseError(
                    "This stream was begun by the parent of this process, and nothing comes of it here; begin another."
                )
        elif make is not None and not self.ended:
            self.start(make)
        self.work()
        while not self.items and not self.ended:
            self.waiting = True  # before looking: a thread that writes after the look sees it, and rings
            if not (self.items or self.ended or self.jobs):
                wait_for(self.bell)
            self.waiting = False
            self.work()

    def start(self, make: Callable[[], Observable[T]]) -> None:
        if in_loop(portal()):
            raise MisuseError(
                "A synchronous call on rxllm's own event loop would wait for itself. Inside handlers, operators "
                "and `async def complete` use `await llm.ainvoke(…)` or `async for … in llm.astream(…)`."
            )
        if portal().is_closed():
            raise MisuseError("The interpreter is shutting down; it is too late for a new stream.")
        self.scheduler = Scheduler(portal())
        self.scheduler.lifetime.on_failure = self.fail
        if self.stream() is not None:
            self.dropped = when_dropped(self.stream, self.close)
        self.scheduler.call(functools.partial(self.begin, make))

    def on_next(self, value: T) -> None:
        items = self.items
        items.append(value)
        if len(items) >= HIGH_WATER:
            self.scheduler.gate.close()
            if len(items) <= LOW_WATER:  # the consumer was faster than this thread, and did not see it closed
                self.scheduler.gate.open()
        if self.waiting:
            self.wake()

    def on_completed(self) -> None:
        self.dropped = None
        self.over()
        if self.waiting:
            self.wake()

    def wake(self) -> None:
        self.waiting = False
        self.bell.put(None)

    def work(self) -> None:
        while self.jobs and not self.ended:
            self.jobs.popleft()()

    def reopen(self) -> None:
        self.reopening = False
        self.scheduler.gate.open()

    def leave(self) -> None:
        """The reader wants no more."""
        if not self.ended and hasattr(self, "scheduler"):
            close_elsewhere(self)
        self.ended = True
        self.items.clear()


class SyncStream(Iterator[T], Generic[T]):
    """The items of an Observable for a ``for`` loop; one pass, and a context manager.

    Nothing is sent before the first ``next``. `close`, leaving ``with``, ``break`` or an exception (which drop the
    iterator) and Ctrl-C close the request, even while the exception's traceback is kept, as a notebook keeps it.
    Several streams may be read at once from several threads; one stream by one thread.
    """

    # `__next__` is the sink's own method, kept in a slot: a method of this class would hold the stream in its frame,
    # and with it every traceback that passes there.
    if TYPE_CHECKING:

        def __next__(self) -> T: ...
    else:
        __slots__ = ("__next__", "__weakref__", "_sink")

    def __init__(self, source: Observable[T]) -> None:
        expected(source)
        self._read(_Sink(lambda: source))

    def _read(self, sink: _Sink[T]) -> None:
        self._sink = sink
        self.__next__ = sink.next  # type: ignore[method-assign]
        sink.stream = weakref.ref(self)

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Never:
        raise MisuseError("This stream is for a plain `for`; here write `async for … in llm.astream(prompt)`.")

    def __await__(self) -> Never:
        raise MisuseError(
            "A stream is not awaited: write `async for … in llm.astream(prompt)`, or for the whole answer "
            "`await llm.ainvoke(prompt)`."
        )

    def __aenter__(self) -> Never:
        raise MisuseError("This stream is for a plain `with`; here write `async with llm.astream(prompt) as …`.")

    async def __aexit__(self, *_: object) -> None:
        """Without it ``async with`` would not get as far as the sentence."""

    def close(self) -> None:
        """Closes the stream and its request. Idempotent."""
        self._sink.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class CallerStream(SyncStream[T]):
    """A stream of what `operator` makes of `items`, which are pulled in the thread that reads the stream.

    So a database cursor, which belongs to its thread, is a fine source. While the reader is busy elsewhere, nothing
    is pulled.
    """

    __slots__ = ()

    def __init__(self, items: Iterable[In], operator: Callable[[Observable[In]], Observable[T]]) -> None:
        sink: _Sink[T] = _Sink(
            lambda: operator(source(lambda scheduler: pull(_Caller(scheduler.loop, sink), lambda: items)))
        )
        self._read(sink)


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
