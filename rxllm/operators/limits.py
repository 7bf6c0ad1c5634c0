"""Limits on time: `first_chunk_timeout`, `idle_timeout`, `deadline`."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeVar, cast

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, SerialDisposable

from .._runtime import Scheduler, Source, clock, connect, timers
from ..errors import MisuseError, Timeout

__all__ = ["check_seconds", "deadline", "first_chunk_timeout", "idle_timeout", "silence"]

T = TypeVar("T")

LATE = 0.05  # seconds; a look that comes later than this was kept from coming


def check_seconds(what: str, seconds: object) -> None:
    """Refuses what is no positive number of seconds.

    Raises:
        MisuseError: it is none.
    """
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not 0 < cast("float", seconds) < inf:
        raise MisuseError(f"{what} must be a positive number of seconds, not {seconds!r}.")


def first_chunk_timeout(seconds: float) -> Callable[[Observable[T]], Observable[T]]:
    """Fails when nothing has come within `seconds` of the subscription.

    ::

        -----------a-b-|
        first_chunk_timeout(3)
        ---x

    Units: seconds. Errors: `Timeout`, which closes the source. Time with the gate closed does not count.
    Source: first-token timeouts, as asked for of LiteLLM's proxy.
    """
    check_seconds("first_chunk_timeout", seconds)
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
    check_seconds("idle_timeout", seconds)
    return silence(first=None, idle=seconds)


def deadline(seconds: float) -> Callable[[Observable[T]], Observable[T]]:
    """Fails when the stream has not ended within `seconds` of the subscription.

    ::

        -a-b---c---d-e-|
        deadline(8)
        -a-b---c-x

    It bounds the whole, whoever is slow: pauses of the consumer count, too. To bound silence, use `idle_timeout`.

    Units: seconds. Errors: `Timeout`, which closes the source.
    """
    check_seconds("deadline", seconds)

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            home = timers(given)

            def fail(_: abc.SchedulerBase, state: object = None) -> None:
                observer.on_error(Timeout(f"The stream did not end within {seconds:g} s."))

            alarm = (home.unheld() if isinstance(home, Scheduler) else home).schedule_relative(seconds, fail)
            return CompositeDisposable(connect(source, observer, home), alarm)

        return Source(subscribe)

    return operator


def silence(*, first: float | None, idle: float | None) -> Callable[[Observable[T]], Observable[T]]:
    """Both limits in one operator, since each operator costs its 0.2 µs a chunk."""

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

    __slots__ = (
        "alarm",
        "alarms",
        "clock",
        "emit",
        "excused",
        "first",
        "idle",
        "last",
        "observer",
        "started",
        "timers",
    )

    def __init__(
        self, observer: abc.ObserverBase[T], given: abc.SchedulerBase | None, first: float | None, idle: float | None
    ) -> None:
        self.observer = observer
        self.emit = observer.on_next
        home = self.timers = timers(given)
        self.alarms = home.unheld() if isinstance(home, Scheduler) else home
        self.clock = clock(home)
        self.first, self.idle = first, idle
        self.started = False
        self.last = self.clock()
        self.excused: float | None = None
        self.alarm = SerialDisposable()
        if first is not None:
            self.sleep(first)

    def on_next(self, value: T) -> None:
        self.last = self.clock()
        if not self.started:
            self.started = True
            if self.idle is not None:
                self.sleep(self.idle)
        self.emit(value)

    def on_error(self, error: Exception) -> None:
        self.alarm.dispose()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.alarm.dispose()
        self.observer.on_completed()

    def sleep(self, seconds: float) -> None:
        self.alarm.disposable = self.alarms.schedule_relative(seconds, self.look)

    def look(self, _: abc.SchedulerBase, state: object = None) -> None:
        """Fails if the limit is over; else sleeps until it can be."""
        limit = self.idle if self.started else self.first
        if limit is None:
            return
        gate = self.timers.gate if isinstance(self.timers, Scheduler) else None
        since = max(self.last, gate.opened_at) if gate else self.last
        left = since + limit - self.clock()
        if gate is not None and not gate.is_open:
            self.sleep(limit)
        elif left > 1e-6:  # what datetime can tell apart
            self.sleep(left)
        elif left < -LATE and self.excused != self.last:
            # Nobody looked in time, since this thread was busy; what came meanwhile is still to be read.
            self.excused = self.last
            self.sleep(LATE)
        else:
            what = "no further chunk" if self.started else "no first chunk"
            self.observer.on_error(Timeout(f"There was {what} within {limit:g} s."))
