"""`smooth`: emit items at an even pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.gate import HIGH_WATER, LOW_WATER, Gate
from ..runtime.loops import in_loop
from ..runtime.scheduler import Scheduler, clock, timers
from ..runtime.source import Source, connect
from .adding_up import SAME
from .stage import makes_operator
from .timeouts import check_seconds

__all__ = ["smooth"]

T = TypeVar("T")

_MOMENT = 1e-6  # seconds, the resolution of datetime


@makes_operator(SAME)
def smooth(seconds: float) -> Callable[[Observable[T]], Observable[T]]:
    """Emit the same items at an even pace, so that bursts of text do not jump on the screen.

    ::

        -(a,b,c,d)----e-|
        smooth(15)
        -a-b-c-d------e-|

    The first item, and each item after a pause, is emitted at once, so smoothing never delays the first token. The
    items of a burst are emitted at intervals, which are shorter for a larger burst. The pace follows the arrivals of
    the last `seconds`, and is faster while items wait. So an even stream stays unchanged, and no stream falls behind.

    Shape: passes the items of the source on, and neither drops, joins nor cuts any; `words` before it makes them
    smaller. An item waits at most `seconds`, unless the consumer is full or the event loop is busy. At most 64 items
    wait, then the source pauses. Each time this limit is reached, the pace doubles.

    Units: seconds of the scheduler's clock.

    Errors: those of the source, after the waiting items, as for the completion. Disposing drops the waiting items.

    Source: the smoothing of the Vercel AI SDK, which waits a fixed time for each item and falls behind fast models.
    """
    check_seconds("smooth", seconds)

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            return _Pacer(observer, requested, seconds).start(source)

        return Source(subscribe)

    return operator


class _Pacer(abc.ObserverBase[T]):
    """A queue, and one timer for the item at its head.

    States: idle (no item waits), draining (items wait, and a timer is set), ended (the source has ended, and items may
    still wait). They change on the event loop only; items from other threads are handed to the loop.

    While items wait, the time between two of them (`gap`) only shrinks. At each arrival it becomes at most `seconds`
    divided by the number of waiting items, so that the last item is emitted in time, too.

    On an event loop the timer is the loop's own: a scheduled action takes three times as long, and each item needs one.
    """

    __slots__ = (
        "alarm",
        "arrivals",
        "clock",
        "due",
        "emit",
        "end",
        "ended",
        "gap",
        "gate",
        "handle",
        "items",
        "observer",
        "release",
        "scheduler",
        "seconds",
        "timers",
        "upstream",
        "wake",
    )

    def __init__(self, observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None, seconds: float) -> None:
        self.observer = observer
        self.emit = observer.on_next
        self.seconds = seconds
        scheduler = self.timers = timers(requested)
        self.scheduler = scheduler if isinstance(scheduler, Scheduler) else None
        self.clock = clock(scheduler)
        self.gate = Gate()
        self.items: deque[T] = deque()
        self.arrivals: deque[float] = deque()  # times within the last `seconds`
        self.gap = 0.0
        self.due = -inf  # when the next item may be emitted
        self.wake = 0.0  # when the timer fires
        self.end: Callable[[], object] | None = None  # ends the stream when no item waits any more
        self.ended = False
        self.handle: asyncio.Handle | None = None  # the timer on an event loop, while items wait
        self.release: Callable[[], object] = Disposable().dispose
        self.alarm = LockFreeSerialDisposable()
        self.upstream = LockFreeSerialDisposable()

    def start(self, source: Observable[T]) -> abc.DisposableBase:
        if self.scheduler is not None:
            self.alarm.disposable = Disposable(lambda: self.call(self.disarm))
        upstream_scheduler = self.scheduler.with_gate(self.gate) if self.scheduler else self.timers
        self.upstream.disposable = connect(source, self, upstream_scheduler)
        return CompositeDisposable(self.upstream, self.alarm)

    def on_next(self, value: T) -> None:
        if self.scheduler is None or in_loop(self.scheduler.loop):
            self.take(value)
        else:
            self.scheduler.call(lambda: self.take(value))

    def on_error(self, error: Exception) -> None:
        self.call(lambda: self.finish(lambda: self.observer.on_error(error)))

    def on_completed(self) -> None:
        self.call(lambda: self.finish(self.observer.on_completed))

    def call(self, action: Callable[[], object]) -> None:
        if self.scheduler is None:
            action()
        else:
            self.scheduler.call(action)

    def take(self, value: T) -> None:
        if self.ended or self.alarm.is_disposed:
            return
        now, items, arrivals = self.clock(), self.items, self.arrivals
        arrivals.append(now)
        while arrivals[0] < now - self.seconds:
            arrivals.popleft()
        gap = self.seconds / (len(arrivals) + len(items) + 1)
        last = self.due - self.gap
        if not items:
            self.gap = gap
            self.due = last + gap
            if self.due <= now + _MOMENT and self.open_below():
                self.due = now + gap
                self.emit(value)
            else:
                items.append(value)
                self.set_alarm(now, 0.0)  # more items of the burst may arrive now, and shorten the wait
            return
        items.append(value)
        if len(items) >= HIGH_WATER and self.gate.is_open:
            self.gate.close()
            self.gap /= 2
        self.gap = min(self.gap, gap)
        self.due = last + self.gap
        if self.due < self.wake - self.gap:  # setting the timer for each item of a burst would cost more than the burst
            self.sleep(now)

    def finish(self, end: Callable[[], object]) -> None:
        """End the stream after the waiting items, and dispose the source, which may still be running."""
        if self.ended:
            return
        self.ended = True
        self.upstream.dispose()
        if self.items:
            self.end = end
        else:
            end()

    def open_below(self) -> bool:
        return self.scheduler is None or self.scheduler.gate.is_open

    def sleep(self, now: float) -> None:
        self.set_alarm(now, max(self.due - now, 0.0))

    def set_alarm(self, now: float, seconds: float) -> None:
        self.wake = now + seconds
        scheduler = self.scheduler
        if scheduler is None:
            self.alarm.disposable = self.timers.schedule_relative(seconds, self.look)
            return
        if self.handle is None:
            self.release = scheduler.hold()  # keeps a script alive that has only subscribed
        else:
            self.handle.cancel()
        self.handle = scheduler.loop.call_later(seconds, self.look, context=scheduler.context)

    def disarm(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
            self.release()

    def look(self, *_: object) -> None:
        """Emit the items that are due, and sleep until the next one is due."""
        items = self.items
        now = self.clock()
        while items and self.due <= now + _MOMENT and not self.alarm.is_disposed:
            if not self.open_below():
                self.due = now + max(self.gap, self.seconds / LOW_WATER)
                break
            # Counted from the due time, so that a late timer does not delay the other items.
            self.due += self.gap
            value = items.popleft()
            if len(items) <= LOW_WATER:
                self.gate.open()
            self.emit(value)
        if self.alarm.is_disposed:
            return
        if items:
            self.sleep(now)
            return
        if self.end is not None:
            self.end()
        self.disarm()
