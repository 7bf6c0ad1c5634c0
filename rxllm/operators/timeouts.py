"""Limits on time: `first_chunk_timeout`, `idle_timeout`, `deadline`."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeVar, cast

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable

from ..errors import Timeout
from ..misuse import MisuseError
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Scheduler, Timers, clock, timers
from ..runtime.source import Source, connect
from .adding_up import SAME
from .answering import Arrived, overhearing
from .stage import makes_operator

__all__ = ["Watch", "check_seconds", "deadline", "first_chunk_timeout", "idle_timeout", "silence"]

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


@makes_operator(SAME)
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
    return _telling(silence(first=seconds, idle=None))


@makes_operator(SAME)
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
    return _telling(silence(first=None, idle=seconds))


@makes_operator(SAME)
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
            scheduler = timers(given)
            upstream = LockFreeSerialDisposable()

            def fail(_: abc.SchedulerBase, state: object = None) -> None:
                observer.on_error(Timeout(f"The stream did not end within {seconds:g} s."))
                upstream.dispose()  # not before: the error is told by what is still on its way

            alarm = (scheduler.unheld() if isinstance(scheduler, Scheduler) else scheduler).schedule_relative(
                seconds, fail
            )
            upstream.disposable = connect(source, observer, scheduler)
            return CompositeDisposable(upstream, alarm)

        return Source(subscribe)

    return _telling(operator)


def _telling(limit: Callable[[Observable[T]], Observable[T]]) -> Callable[[Observable[T]], Observable[T]]:
    """The limit, and its Timeouts tell what was asked and what had arrived, where the source is or was an answer."""

    def operator(source: Observable[T]) -> Observable[T]:
        limited = limit(source)

        def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            scheduler = timers(given)
            if not isinstance(scheduler, Scheduler):
                return connect(limited, _Telling(observer, _nothing), scheduler)
            above, tell = overhearing(scheduler)
            return connect(limited, _Telling(observer, tell), above)

        return Source(subscribe)

    return operator


def _nothing(error: Timeout) -> None:
    """There is nobody to ask."""


class _Telling(abc.ObserverBase[T]):
    """Asks the model above; where there is none, as of an answer that is kept, what has passed here is all there is."""

    __slots__ = ("arrived", "emit", "keep", "observer", "tell")

    def __init__(self, observer: abc.ObserverBase[T], tell: Callable[[Timeout], None]) -> None:
        self.observer = observer
        self.emit = observer.on_next
        self.arrived = Arrived()
        self.keep = self.arrived.add
        self.tell = tell

    def on_next(self, value: T) -> None:
        self.keep(value)
        self.emit(value)

    def on_error(self, error: Exception) -> None:
        if isinstance(error, Timeout):
            self.tell(error)
            if error.partial is None:
                error.partial = self.arrived.message()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.observer.on_completed()


def silence(*, first: float | None, idle: float | None) -> Callable[[Observable[T]], Observable[T]]:
    """Both limits in one operator, since each operator costs its 0.2 µs a chunk."""

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            watched = _Watched(observer, timers(given), first, idle)
            watched.upstream.disposable = connect(source, watched, watched.scheduler)
            return watched

        return Source(subscribe) if isinstance(source, Source) else Observable(subscribe)

    return operator


class Watch(abc.DisposableBase):
    """Who bounds silence: the base of an observer that notes in `last` when it heard something.

    One timer at a time, which looks when that was and sleeps on: nothing is scheduled for an item.

    Attributes:
        upstream: what is watched, left when it is late.
    """

    __slots__ = ("alarm", "alarms", "clock", "excused", "first", "idle", "last", "scheduler", "started", "upstream")

    def __init__(self, scheduler: Timers, first: float | None, idle: float | None) -> None:
        self.scheduler = scheduler
        self.alarms = scheduler.unheld() if isinstance(scheduler, Scheduler) else scheduler
        self.clock = clock(scheduler)
        self.first, self.idle = inf if first is None else first, inf if idle is None else idle
        self.started = False
        self.last = self.clock()
        self.excused: float | None = None
        self.alarm = LockFreeSerialDisposable()
        self.upstream = LockFreeSerialDisposable()
        self.sleep(inf)

    def late(self, error: Timeout) -> None:
        """It was silent for too long."""
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        """Looks again after so many seconds, or sooner."""
        # Never beyond the next limit: then no item needs to set the alarm anew, which is most of what this costs.
        soonest = min(seconds, self.idle, inf if self.started else self.first)
        if soonest < inf:
            self.alarm.disposable = self.alarms.schedule_relative(soonest, self.look)

    def look(self, _: abc.SchedulerBase, state: object = None) -> None:
        """Is late if the limit is over; else sleeps until it can be."""
        limit = self.idle if self.started else self.first
        opened_at = self.scheduler.opened_at() if isinstance(self.scheduler, Scheduler) else self.last
        left = max(self.last, opened_at or 0.0) + limit - self.clock()
        if opened_at is None or limit == inf:  # which is not so for ever: there may be another after the first item
            self.sleep(limit)
        elif left > 1e-6:  # what datetime can tell apart
            self.sleep(left)
        elif left < -LATE and self.excused != self.last:
            # Nobody looked in time, since this thread was busy; what came meanwhile is still to be read.
            self.excused = self.last
            self.sleep(LATE)
        else:
            what = "no further chunk" if self.started else "no first chunk"
            self.late(Timeout(f"There was {what} within {limit:g} s."))
            self.upstream.dispose()  # not before: the error is told by what is still on its way

    def dispose(self) -> None:
        """Leaves upstream, and watches no more."""
        self.alarm.dispose()
        self.upstream.dispose()


class _Watched(Watch, abc.ObserverBase[T]):
    __slots__ = ("emit", "observer")

    def __init__(
        self, observer: abc.ObserverBase[T], scheduler: Timers, first: float | None, idle: float | None
    ) -> None:
        self.observer = observer
        self.emit = observer.on_next
        super().__init__(scheduler, first, idle)

    def late(self, error: Timeout) -> None:
        self.observer.on_error(error)

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
