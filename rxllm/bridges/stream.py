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
from ..runtime.source import check_observable, source
from ..runtime.threads import Calls, pull
from .sink import Sink

__all__ = ["CallerStream", "SyncStream", "stream"]

T = TypeVar("T")
In = TypeVar("In")


class _Sink(Sink[T]):
    """The sink of a synchronous stream.

    The background loop's thread writes items. The reader's thread takes them, and Ctrl-C may interrupt that thread
    between any two steps. So the reader takes no lock, and each of its steps leaves a valid state: it waits at a queue,
    sets one flag, and lets another thread close a stream that it drops.

    Attributes:
        waiting: whether the reader waits. The reader sets it before it checks for items; the thread that wakes the
            reader unsets it.
        wakeups: the queue at which the reader waits; the reader ignores an item too many.
        jobs: calls for the reader's thread to make while it waits.
        reopening: whether the loop has a call to open the gate.
        stream: the stream that the program holds.
    """

    __slots__ = ("dropped", "jobs", "reopening", "stream", "waiting", "wakeups")

    stream: weakref.ref[SyncStream[T]]

    def __init__(self, make: Callable[[], Observable[T]]) -> None:
        super().__init__(make)
        self.jobs: deque[Callable[[], None]] = deque()
        self.wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.waiting = self.reopening = False
        self.dropped: object = None

    def next(self) -> T:
        """Return the next item; wait until it arrives. This frame and all below it hold no reference to the stream."""
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
            self.abandon()
            raise
        raise self.end(StopIteration)

    def wait(self) -> None:
        """Block the reader until an item or the end arrives; meanwhile run the `jobs`."""
        make, self.make = self.make, None
        if hasattr(self, "scheduler"):
            if self.scheduler.loop is not portal():
                raise MisuseError(
                    "This stream was begun by the parent of this process and gets no items here. Begin a new stream."
                )
        elif make is not None and not self.ended:
            self.start(make)
        self.run_jobs()
        while not self.items and not self.ended:
            self.waiting = True  # before the check: a thread that writes after the check sees it, and wakes the reader
            if not (self.items or self.ended or self.jobs):
                wait_for(self.wakeups)
            self.waiting = False
            self.run_jobs()

    def start(self, make: Callable[[], Observable[T]]) -> None:
        if in_loop(portal()):
            raise MisuseError(
                "A synchronous call on rxllm's own event loop would wait for itself. In handlers, operators and "
                "`async def complete` use `await llm.ainvoke(…)` or `async for … in llm.astream(…)`."
            )
        if portal().is_closed():
            raise MisuseError("The interpreter is shutting down, so no new stream can begin.")
        self.scheduler = Scheduler(portal())
        self.scheduler.lifetime.on_failure = self.fail
        if self.stream() is not None:
            self.dropped = when_dropped(self.stream, self.close)
        self.scheduler.call(functools.partial(self.begin, make))

    def on_next(self, value: T) -> None:
        items = self.items
        items.append(value)
        if len(items) >= HIGH_WATER and self.scheduler.gate.is_open:
            self.scheduler.gate.close()
            if len(items) <= LOW_WATER:  # the reader was faster than this thread, and did not see the gate closed
                self.scheduler.gate.open()
        if self.waiting:
            self.wake()

    def on_completed(self) -> None:
        self.dropped = None
        self.finish()
        if self.waiting:
            self.wake()

    def wake(self) -> None:
        self.waiting = False
        self.wakeups.put(None)

    def run_jobs(self) -> None:
        if self.jobs and not self.ended:
            self.jobs.popleft()()

    def reopen(self) -> None:
        self.reopening = False
        self.scheduler.gate.open()

    def abandon(self) -> None:
        """Close the stream for the reader, in steps that Ctrl-C cannot leave half done."""
        if not self.ended and hasattr(self, "scheduler"):
            close_elsewhere(self)
        self.ended = True
        self.items.clear()


class SyncStream(Iterator[T], Generic[T]):
    """The items of an Observable for a ``for`` loop; a one-shot iterator and a context manager.

    The request is sent at the first ``next``. It is closed by `close`, by leaving ``with``, by ``break`` or an
    exception (which drop the iterator) and by Ctrl-C, also while a notebook keeps the exception's traceback. Several
    threads may read several streams at once, but only one thread may read a stream.
    """

    # `__next__` is the sink's method, kept in a slot. The frame of a method of this class would hold the stream, and so
    # would each traceback that passes through it.
    if TYPE_CHECKING:

        def __next__(self) -> T: ...
    else:
        __slots__ = ("__next__", "__weakref__", "_sink")

    def __init__(self, source: Observable[T]) -> None:
        check_observable(source)
        self._read(_Sink(lambda: source))

    def _read(self, sink: _Sink[T]) -> None:
        self._sink = sink
        self.__next__ = sink.next  # type: ignore[method-assign]
        sink.stream = weakref.ref(self)

    def __repr__(self) -> str:
        return "<SyncStream; to read it: for item in …>"

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Never:
        raise MisuseError("This stream is for a plain `for`. Here write `async for … in llm.astream(prompt)`.")

    def __await__(self) -> Never:
        raise MisuseError(
            "A stream cannot be awaited. Write `async for … in llm.astream(prompt)`, or for the whole answer "
            "`await llm.ainvoke(prompt)`."
        )

    def __aenter__(self) -> Never:
        raise MisuseError("This stream is for a plain `with`. Here write `async with llm.astream(prompt) as …`.")

    async def __aexit__(self, *_: object) -> None:
        """Exist, so that ``async with`` reaches `__aenter__` and its error."""

    def close(self) -> None:
        """Close the stream and its request. Idempotent."""
        self._sink.abandon()

    def _take(self) -> Observable[T]:
        return self._sink.take()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class CallerStream(SyncStream[T]):
    """A stream of `items` through `operator`. The thread that reads the stream pulls the items.

    So a database cursor, which belongs to one thread, works as a source. Items are pulled only while the reader waits.
    """

    __slots__ = ()

    def __init__(self, items: Iterable[In], operator: Callable[[Observable[In]], Observable[T]]) -> None:
        sink: _Sink[T] = _Sink(
            lambda: operator(source(lambda scheduler: pull(scheduler, lambda: items, _Caller(scheduler.loop, sink))))
        )
        self._read(sink)

    def _take(self) -> Never:
        raise MisuseError("A stream whose items this thread pulls can only be read with a `for` loop.")


class _Caller(Calls):
    """Runs the blocking calls in the reader's thread, while the reader waits for an item."""

    def __init__(self, loop: Loop, sink: _Sink[Any]) -> None:
        super().__init__(loop)
        self._sink = sink

    def put(self, job: Callable[[], None]) -> None:
        self._sink.jobs.append(job)
        if self._sink.waiting:
            self._sink.wake()

    def close(self, last: Callable[[], object]) -> None:
        """Do nothing: the caller closes its own items."""


def stream() -> Callable[[Observable[T]], SyncStream[T]]:
    """Read an Observable with a plain ``for`` loop.

    ::

        -a-b---c-|
        for item in source.pipe(stream()): …     a, b, c

    The graph runs on rxllm's background loop. At most 64 items are buffered for the loop's body, then the source
    pauses.

    Errors: ``next`` raises the Observable's error, after the items that came before it. Code that runs on the
    background loop gets a `MisuseError`, since the call would wait for itself.
    """
    return SyncStream
