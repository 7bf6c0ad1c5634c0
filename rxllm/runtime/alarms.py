"""`Alarm`: a timer that nearly always is disposed before it rings, such as a time limit.

asyncio keeps its timers in a heap, and Python code compares them. But time limits have few lengths, and timers of one
length end in the order in which they began. So a dict keeps all alarms of one length in this order, and asyncio has one
timer for them, which waits for the first.

Only the thread of the event loop sets alarms and lets them ring. Any thread may dispose of one.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING

from reactivex import abc

from .loops import Loop

if TYPE_CHECKING:
    from .scheduler import Scheduler

__all__ = ["Alarm"]


class _Alarms:
    """All alarms of one length on one event loop."""

    __slots__ = ("is_timed", "key", "waiting")

    def __init__(self, key: tuple[Loop, float]) -> None:
        self.key = key
        self.waiting: dict[Alarm, float] = {}  # the time of each
        self.is_timed = False

    def add(self, alarm: Alarm) -> None:
        loop, seconds = self.key
        self.waiting[alarm] = when = loop.time() + seconds
        if not self.is_timed:
            self.wait_until(when)

    def wait_until(self, when: float) -> None:
        self.is_timed = True
        loop, _ = self.key
        loop.call_at(when, self.ring, context=contextvars.Context())  # by default the timer would keep the current one

    def ring(self) -> None:
        now = self.key[0].time()
        try:
            while (alarm := next(iter(self.waiting), None)) and self.waiting.get(alarm, now) <= now:
                alarm.ring()
        finally:
            if alarm := next(iter(self.waiting), None):
                self.wait_until(self.waiting.get(alarm, now))
            else:
                self.is_timed = False
                LENGTHS.pop(self.key, None)


LENGTHS: dict[tuple[Loop, float], _Alarms] = {}


def _alarms_of(key: tuple[Loop, float]) -> _Alarms:
    if (alarms := LENGTHS.get(key)) is None:
        for other in list(LENGTHS):  # a copy, since other threads' loops come and go
            if other[0].is_closed():
                LENGTHS.pop(other, None)
        alarms = LENGTHS[key] = _Alarms(key)
    return alarms


class Alarm(abc.DisposableBase):
    """Calls `action` once after `seconds`, on the scheduler's event loop and in its context, unless disposed before.

    It does not keep the process from ending.
    """

    __slots__ = ("action", "alarms", "is_disposed", "scheduler", "seconds")

    def __init__(self, scheduler: Scheduler, seconds: float, action: Callable[[], object]) -> None:
        self.scheduler = scheduler
        self.seconds = seconds
        self.action = action
        self.alarms: _Alarms | None = None
        self.is_disposed = False
        scheduler.call(self.start)

    def start(self) -> None:
        """Set the alarm, on the loop."""
        self.alarms = _alarms_of((self.scheduler.loop, self.seconds))
        if not self.is_disposed:
            self.alarms.add(self)
            if self.is_disposed:  # another thread may have disposed of it meanwhile
                self.dispose()

    def ring(self) -> None:
        """Call the action."""
        self.dispose()
        self.scheduler.context.run(self.scheduler.guard, self.action)

    def dispose(self) -> None:
        """Cancel the alarm."""
        self.is_disposed = True
        if self.alarms is not None:
            self.alarms.waiting.pop(self, None)
