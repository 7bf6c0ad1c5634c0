"""`serialised`: one event at a time on the event loop, whatever threads the source uses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc

from ..runtime.scheduler import Scheduler
from ..runtime.source import Source

__all__ = ["serialised"]

T = TypeVar("T")


def serialised(unsafe: Observable[T], scheduler: Scheduler) -> Observable[T]:
    """Emit the events of an Observable, which may come from any thread, in order on the scheduler's event loop."""

    def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        waiting: deque[Callable[[], None]] = deque()
        busy = False

        def drain() -> None:
            nonlocal busy
            if busy:
                return
            busy = True
            try:
                while waiting:
                    waiting.popleft()()
            finally:
                busy = False

        def put(event: Callable[[], None]) -> None:
            waiting.append(event)
            scheduler.call(drain)

        return unsafe.subscribe(
            lambda value: put(lambda: observer.on_next(value)),
            lambda error: put(lambda: observer.on_error(error)),
            lambda: put(observer.on_completed),
            scheduler=requested,
        )

    return Source(subscribe)
