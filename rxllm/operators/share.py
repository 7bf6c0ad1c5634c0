"""`share`: one request for many subscribers.

A log collects the values of one subscription to the source. States of a log, and what changes them::

    running ─► whole        the source completed; new readers replay it
       ├─────► failed       the source errored; a new reader starts a new log
       └─────► abandoned    the last reader left; a new reader starts a new log

`Shared.lock` guards these changes, the tuple of readers and the count of readers with room. Values are appended on the
log's event loop. Each reader keeps its own position, and drains on its own event loop only.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from threading import get_ident
from typing import Generic, TypeVar, cast

from reactivex import Observable, abc

from ..errors import Interrupted
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.forks import reset_in_child
from ..runtime.gate import Gate
from ..runtime.lifetime import Lifetime
from ..runtime.loops import in_loop, raisable
from ..runtime.scheduler import Scheduler, Timers, call, timers
from ..runtime.source import Source, connect
from .adding_up import SAME
from .stage import makes_operator

__all__ = ["Shared", "share"]

T = TypeVar("T")


@makes_operator(SAME)
def share() -> Callable[[Observable[T]], Observable[T]]:
    """Make one request for all subscribers. Each gets the whole answer from its beginning, however late it subscribes.

    ::

        -a-b-c-d-|
        share()
        -a-b-c-d-|
              (a,b,c)-d-|     a late subscriber

    The answer is kept in one log. Each subscriber reads it at its own pace, and the source pauses only when all
    subscribers are full. A subscriber that disposes does not affect the others; the last one closes the request. A
    subscription after the completion replays the answer. A subscription after an error, or after all subscribers have
    disposed, makes a new request.

    (With ``publish`` and ``ref_count``, late subscribers miss the beginning; a ``ReplaySubject`` has no
    back-pressure.) Subscribers may be on different event loops. The request runs on the loop of the first subscriber,
    and is part of its run. A child of ``os.fork`` inherits a whole answer, and makes a new request for an unfinished
    one.

    Shape: passes the items of the source on.

    Errors: those of the source, for all subscribers at that time, after the values before it. `Interrupted` for
    subscribers on other loops, when the loop of the first subscriber ends before the answer.
    """

    def operator(source: Observable[T]) -> Observable[T]:
        return Shared(source).stream()

    return operator


class Shared(Generic[T]):
    """A source, and its log while the log is running or whole. Any thread may subscribe."""

    def __init__(self, source: Observable[T]) -> None:
        self.source = source
        self.log: _Log[T] | None = None
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Keep a whole answer only: in a forked child the parent's request never emits."""
        self.lock = threading.Lock()
        if self.log is not None and not self.log.ended:
            self.log = None

    def stream(self) -> Source[T]:
        """The values of the log from its beginning, including those to come."""

        def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            reader = _Reader(observer, timers(requested))
            if (current := self.log) is not None and not current.ended and current.is_stranded():
                current.finish(current.stranded())
            with self.lock:
                is_new = self.log is None
                log = self.log = self.log or _Log(self, reader.scheduler)
                reader.follow(log)
                log.readers = (*log.readers, reader)
                log.hungry += 1
            if is_new:
                log.begin()
            log.pace()
            call(reader.scheduler, reader.drain)
            return reader

        return Source(subscribe)


def _detached(scheduler: Scheduler, on_failure: Callable[[BaseException], bool]) -> Scheduler:
    """Return a scheduler with a gate and a lifetime of its own, for a request that may outlive its first subscriber."""
    lifetime = scheduler.lifetime
    return scheduler.evolve(
        gate=Gate(scheduler.gate.clock),
        lifetime=Lifetime(set(), lifetime.handler_tasks, on_failure, keeps_alive=lifetime.keeps_alive),
    )


class _Log(abc.ObserverBase[T]):
    """The values of one subscription to the source, and their readers.

    Attributes:
        hungry: the number of readers that have room.
        thread: the thread of the log's loop, once known, because a check of the loop costs more.
    """

    def __init__(self, owner: Shared[T], first: Timers) -> None:
        self.owner = owner
        self.values: list[T] = []
        self.readers: tuple[_Reader[T], ...] = ()
        self.hungry = 0
        self.ended = False
        self.error: Exception | None = None
        self.scheduler = _detached(first, self.broken) if isinstance(first, Scheduler) else first
        self.thread: int | None = None
        self.upstream = LockFreeSerialDisposable()

    def begin(self) -> None:
        try:
            self.upstream.disposable = connect(self.owner.source, self, self.scheduler)
        except Exception as error:
            self.on_error(error)

    def broken(self, error: BaseException) -> bool:
        """End the log when the request fails outside the stream, or its loop ends. Its readers get the error."""
        is_lost = isinstance(error, asyncio.CancelledError)
        self.finish(self.stranded() if is_lost else cast("Exception", raisable(error)))
        return True

    def is_stranded(self) -> bool:
        """Whether the request's loop was closed before the answer ended."""
        return isinstance(self.scheduler, Scheduler) and self.scheduler.loop.is_closed()

    def stranded(self) -> Interrupted:
        """The error of readers on other loops."""
        return Interrupted(
            "share() runs its request on the event loop of its first subscriber, and that loop ended before the "
            "answer. Subscribe again to make a new request, first on a lasting loop, such as that of "
            "shared.pipe(rxllm.stream())."
        )

    def on_next(self, value: T) -> None:
        if self.ended:
            return
        self.values.append(value)
        if get_ident() == self.thread:
            for reader in self.readers:
                reader.wake()
        else:
            self.notify_readers()

    def on_error(self, error: Exception) -> None:
        self.finish(error)

    def on_completed(self) -> None:
        self.finish()

    def finish(self, error: Exception | None = None) -> None:
        """End the log once, and dispose the source, which may still be running."""
        with self.owner.lock:
            if self.ended:
                return
            self.error = error
            self.ended = True
            if error is not None and self.owner.log is self:  # the next reader starts a new log
                self.owner.log = None
        self.upstream.dispose()
        self.notify_readers()

    def notify_readers(self) -> None:
        if isinstance(self.scheduler, Scheduler) and in_loop(self.scheduler.loop):
            self.thread = get_ident()
        for reader in self.readers:
            call(reader.scheduler, reader.drain)

    def pace(self) -> None:
        """Pause the source when all readers are full."""
        if not isinstance(self.scheduler, Scheduler):
            return
        if self.hungry or self.ended:
            self.scheduler.call(self.scheduler.gate.open)
        else:
            self.scheduler.gate.close()

    def left(self, reader: _Reader[T]) -> None:
        with self.owner.lock:
            self.readers = tuple(other for other in self.readers if other is not reader)
            self.hungry -= not reader.is_full
            deserted = not self.readers and not self.ended
            if deserted and self.owner.log is self:
                self.owner.log = None
        if deserted:
            self.upstream.dispose()
        else:
            self.pace()

    def filled(self, *, hungry: int) -> None:
        with self.owner.lock:
            self.hungry += hungry
        self.pace()


class _Reader(abc.DisposableBase, Generic[T]):
    """One subscriber and its position in the log."""

    log: _Log[T]
    wake: Callable[[], None]

    def __init__(self, observer: abc.ObserverBase[T], scheduler: Timers) -> None:
        self.observer = observer
        self.scheduler = scheduler
        self.position = 0
        self.is_full = self.is_busy = self.over = False
        self.opening: asyncio.Future[None] | None = None

    def follow(self, log: _Log[T]) -> None:
        self.log = log
        scheduler, there = self.scheduler, log.scheduler
        is_there = not isinstance(scheduler, Scheduler) or (
            isinstance(there, Scheduler) and scheduler.loop is there.loop
        )
        self.wake = self.drain if is_there else functools.partial(call, scheduler, self.drain)

    def drain(self) -> None:
        """Emit the values so far, while the subscriber has room."""
        if self.is_busy or self.is_full:
            return
        self.is_busy = True
        scheduler, log, values = self.scheduler, self.log, self.log.values
        try:
            while self.position < len(values) and not self.over:
                if isinstance(scheduler, Scheduler) and not scheduler.gate.is_open:
                    self.wait(scheduler)
                    return
                value = values[self.position]
                self.position += 1
                self.observer.on_next(value)
            if log.ended and not self.over and self.position == len(values):
                self.over = True
                self.observer.on_completed() if log.error is None else self.observer.on_error(log.error)
        except Exception as error:
            if not isinstance(scheduler, Scheduler):
                raise
            scheduler.report(
                "A subscriber or an operator raised in on_next. It was removed from the shared stream.", error
            )
            self.leave()
        finally:
            self.is_busy = False

    def wait(self, scheduler: Scheduler) -> None:
        """Resume when the subscriber has room again."""
        self.is_full = True
        self.log.filled(hungry=-1)
        self.opening = scheduler.gate.opening(scheduler.loop)
        self.opening.add_done_callback(self.opened, context=scheduler.context)

    def opened(self, _: asyncio.Future[None]) -> None:
        if not self.over:
            self.is_full = False
            self.log.filled(hungry=1)
            self.drain()

    def dispose(self) -> None:
        call(self.scheduler, self.leave)

    def leave(self) -> None:
        if not self.over or self in self.log.readers:
            self.over = True
            if self.opening is not None:
                self.opening.cancel()
            self.log.left(self)
