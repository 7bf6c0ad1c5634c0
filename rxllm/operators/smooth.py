"""An even rhythm: `smooth`."""

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

_MOMENT = 1e-6  # seconds, what datetime can tell apart


@makes_operator(SAME)
def smooth(seconds: float) -> Callable[[Observable[T]], Observable[T]]:
    """The same items in an even rhythm, for text that shall run and not jump.

    ::

        -abcdef-----------g-|
        smooth(6)
        -a-b-c-d-e-f------g-|

    The first item, and each that comes after a lull, leaves at once: the first token is never late. Of a burst, one
    leaves every so often, the quicker the more there are. The rhythm is that of the last `seconds`, and faster where
    items wait, so that a stream that is even stays as it is and does not fall behind.

    Shape: nothing is lost, joined or cut; `words` before it makes the pieces smaller. No item waits longer than
    `seconds` here, however fast the source is (but for a consumer that is full, and a busy loop). At most 64 items
    wait, then the source pauses; if it has as many ready again, the rhythm doubles each time.

    Units: seconds, any that the scheduler counts.

    Errors: of the source, like its end, after what waits. Who leaves gets nothing of it.

    Source: the smoothing of the Vercel AI SDK, which waits a fixed time an item and falls behind fast models.
    """
    check_seconds("smooth", seconds)

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            return _Pacer(observer, given, seconds).start(source)

        return Source(subscribe)

    return operator


class _Pacer(abc.ObserverBase[T]):
    """A queue, and one timer at a time for the item at its head.

    While items wait, the time between two of them (`gap`) only shrinks, and with each that comes it is at most
    `seconds` divided by how many wait: so the last of them leaves in time, too.

    On a loop the timer is the loop's own, as a scheduled action takes three times as long, and there is one an item.
    """

    __slots__ = (
        "alarm",
        "arrivals",
        "clock",
        "due",
        "emit",
        "end",
        "gap",
        "gate",
        "handle",
        "items",
        "observer",
        "over",
        "release",
        "scheduler",
        "seconds",
        "timers",
        "upstream",
        "wake",
    )

    def __init__(self, observer: abc.ObserverBase[T], given: abc.SchedulerBase | None, seconds: float) -> None:
        self.observer = observer
        self.emit = observer.on_next
        self.seconds = seconds
        scheduler = self.timers = timers(given)
        self.scheduler = scheduler if isinstance(scheduler, Scheduler) else None
        self.clock = clock(scheduler)
        self.gate = Gate()
        self.items: deque[T] = deque()
        self.arrivals: deque[float] = deque()  # of the last `seconds`
        self.gap = 0.0
        self.due = -inf  # when the next may leave
        self.wake = 0.0  # when the timer is set to
        self.end: Callable[[], object] | None = None  # what is to be said when all have left
        self.over = False
        self.handle: asyncio.Handle | None = None  # while items wait, on a loop
        self.release: Callable[[], object] = Disposable().dispose
        self.alarm = LockFreeSerialDisposable()
        self.upstream = LockFreeSerialDisposable()

    def start(self, source: Observable[T]) -> abc.DisposableBase:
        if self.scheduler is not None:
            self.alarm.disposable = Disposable(lambda: self.call(self.disarm))
        above = self.scheduler.with_gate(self.gate) if self.scheduler else self.timers
        self.upstream.disposable = connect(source, self, above)
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
        if self.over or self.alarm.is_disposed:
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
                self.set_alarm(now, 0.0)  # more of a burst may come right now, and then it is due sooner
            return
        items.append(value)
        if len(items) >= HIGH_WATER and self.gate.is_open:
            self.gate.close()
            self.gap /= 2
        self.gap = min(self.gap, gap)
        self.due = last + self.gap
        if self.due < self.wake - self.gap:  # to set it anew for each of a burst would cost more than the burst
            self.sleep(now)

    def finish(self, end: Callable[[], object]) -> None:
        """Says it when all have left; the source has nothing more to say, even if it goes on."""
        if self.over:
            return
        self.over = True
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
            self.release = scheduler.hold()  # what waits is part of a stream that a script has only subscribed to
        else:
            self.handle.cancel()
        self.handle = scheduler.loop.call_later(seconds, self.look, context=scheduler.context)

    def disarm(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
            self.release()

    def look(self, *_: object) -> None:
        """Emits what is due, and sleeps until the next is."""
        items = self.items
        now = self.clock()
        while items and self.due <= now + _MOMENT and not self.alarm.is_disposed:
            if not self.open_below():
                self.due = now + max(self.gap, self.seconds / LOW_WATER)
                break
            # A timer that was late does not make the rest late.
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
