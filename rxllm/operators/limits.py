"""Limits on silence: `first_chunk_timeout`, `idle_timeout`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable

from .._runtime import Scheduler, Source, scheduler
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
        def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            watch = _Watch(observer, given, first, idle)
            upstream = source.subscribe(watch, scheduler=watch.timers)
            return CompositeDisposable(upstream, watch.alarm)

        return Source(subscribe) if isinstance(source, Source) else Observable(subscribe)

    return operator


class _Watch(abc.ObserverBase[T]):
    """One timer at a time, which looks when the last item came and sleeps on: nothing is scheduled for an item."""

    __slots__ = ("alarm", "clock", "idle", "last", "limit", "next", "observer", "started", "timers")

    def __init__(
        self, observer: abc.ObserverBase[T], given: abc.SchedulerBase | None, first: float | None, idle: float | None
    ) -> None:
        self.observer = observer
        self.next = observer.on_next
        # Any scheduler that counts time will do, virtual time too; without one, the loop's.
        self.timers = given if given is not None else scheduler()
        timers = self.timers
        self.clock: Callable[[], float] = (
            time.monotonic if isinstance(timers, Scheduler) else lambda: timers.now.timestamp()
        )
        self.limit, self.idle = first, idle
        self.started = False
        self.alarm = SerialDisposable()
        self.last = self.clock()
        self.arm()

    def on_next(self, value: T) -> None:
        if self.idle is not None:
            self.last = self.clock()
        if not self.started:
            self.started = True
            self.limit = self.idle
            self.arm()
        self.next(value)

    def on_error(self, error: Exception) -> None:
        self.alarm.dispose()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.alarm.dispose()
        self.observer.on_completed()

    def arm(self) -> None:
        if self.limit is not None:
            self.sleep(self.limit)
        elif self.started:
            self.alarm.dispose()

    def sleep(self, seconds: float) -> None:
        self.alarm.disposable = self.timers.schedule_relative(seconds, lambda *_: self.look())

    def look(self) -> None:
        if self.limit is None:
            return
        gate = self.timers.gate if isinstance(self.timers, Scheduler) else None
        if gate is not None and not gate.is_open:
            return self.sleep(self.limit)
        since = max(self.last, gate.opened_at) if gate else self.last
        left = since + self.limit - self.clock()
        if left > 1e-6:
            return self.sleep(left)
        what = "no further chunk" if self.started else "no first chunk"
        return self.observer.on_error(Timeout(f"There was {what} within {self.limit:g} s."))
