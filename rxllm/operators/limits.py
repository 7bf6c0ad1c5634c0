"""Limits on silence: `first_chunk_timeout`, `idle_timeout`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable

from .._runtime import Scheduler, Source, connect, scheduler
from ..errors import MisuseError, Timeout

__all__ = ["first_chunk_timeout", "idle_timeout", "silence"]

T = TypeVar("T")


def first_chunk_timeout(seconds: float) -> Callable[[Observable[T]], Observable[T]]:
    """Fails when nothing has come within `seconds` of the subscription.

    ::

        -----------a-b-|
        first_chunk_timeout(3)
        ---x

    Units: seconds. Errors: `Timeout`, which closes the source. Time with the gate closed does not count.
    Source: first-token timeouts, as asked for of LiteLLM's proxy.
    """
    return silence(first=seconds, idle=None)


def idle_timeout(seconds: float) -> Callable[[Observable[T]], Observable[T]]:
    """Fails when, after an item, no other has come for `seconds`.

    ::

        -a-b-----------c-|
        idle_timeout(3)
        -a-b---x

    It bounds silence, not the whole: a long answer that keeps coming is fine. Keep-alive comments are no chunks, so
    no life. A pause of the consumer (a closed gate) is no idleness.

    Units: seconds. Errors: `Timeout`, which closes the source.
    """
    return silence(first=None, idle=seconds)


def silence(*, first: float | None, idle: float | None) -> Callable[[Observable[T]], Observable[T]]:
    """Both limits in one operator, since each operator costs its 0.2 µs a chunk."""
    for seconds in (first, idle):
        if seconds is not None and seconds <= 0:
            raise MisuseError(f"A limit on silence must be a positive number of seconds, not {seconds!r}.")

    def operator(source: Observable[T]) -> Observable[T]:
        if first is None and idle is None:
            return source

        def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            watch = _Watch(observer, given, first, idle)
            upstream = connect(source, watch, watch.timers)
            return CompositeDisposable(upstream, watch.alarm)

        return Source(subscribe) if isinstance(source, Source) else Observable(subscribe)

    return operator


class _Watch(abc.ObserverBase[T]):
    """One timer at a time, which looks when the last item came and sleeps on: nothing is scheduled for an item."""

    __slots__ = ("alarm", "clock", "emit", "first", "idle", "last", "observer", "started", "timers")

    def __init__(
        self, observer: abc.ObserverBase[T], given: abc.SchedulerBase | None, first: float | None, idle: float | None
    ) -> None:
        self.observer = observer
        self.emit = observer.on_next
        # Any scheduler that counts time will do, virtual time too; without one, the loop's.
        timers = self.timers = given if given is not None else scheduler()
        self.clock: Callable[[], float] = (
            time.monotonic if isinstance(timers, Scheduler) else lambda: timers.now.timestamp()
        )
        self.first, self.idle = first, idle
        self.started = False
        self.last = self.clock()
        self.alarm = SerialDisposable()
        self.sleep(min(limit for limit in (first, idle) if limit is not None))

    def on_next(self, value: T) -> None:
        self.last = self.clock()
        self.started = True
        self.emit(value)

    def on_error(self, error: Exception) -> None:
        self.alarm.dispose()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.alarm.dispose()
        self.observer.on_completed()

    def sleep(self, seconds: float) -> None:
        self.alarm.disposable = self.timers.schedule_relative(seconds, self.look)

    def look(self, _: abc.SchedulerBase, state: object = None) -> None:
        """Fails if the limit is over; else sleeps until it can be."""
        limit = self.idle if self.started else self.first
        gate = self.timers.gate if isinstance(self.timers, Scheduler) else None
        if limit is None:
            if self.idle is not None:  # the first item may take its time; this looks for it
                self.sleep(self.idle)
            return
        since = max(self.last, gate.opened_at) if gate else self.last
        left = since + limit - self.clock()
        if gate is not None and not gate.is_open:
            self.sleep(limit)
        elif left > 1e-6:  # what datetime can tell apart
            # The first item may come any time, and from then on the other limit counts.
            self.sleep(left if self.started or self.idle is None else min(left, self.idle))
        else:
            what = "no further chunk" if self.started else "no first chunk"
            self.observer.on_error(Timeout(f"There was {what} within {limit:g} s."))
