"""The far end of the graph, which both ways out of Rx share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from reactivex import Observable, abc

from ..runtime.lifetime import not_handled
from ..runtime.loops import raisable
from ..runtime.scheduler import Scheduler
from ..runtime.source import connect

__all__ = ["Sink"]

T = TypeVar("T")


class Sink(abc.ObserverBase[T]):
    """Keeps the items until the reader takes them.

    The sink does not know the stream that the program holds, and every frame that waits for an item is a frame of the
    sink. So a traceback that is kept keeps no stream: the stream is collected, and its request is closed.

    ====== ============== ======= ==========================================
    state  `make`         `ended` changed by
    ====== ============== ======= ==========================================
    new    the source     False   the constructor
    begun  None           False   the reader's first ``next``
    ended  None           True    the source's end, or the reader's `close`
    ====== ============== ======= ==========================================
    """

    __slots__ = ("ended", "error", "items", "make", "scheduler", "subscription")

    scheduler: Scheduler

    def __init__(self, make: Callable[[], Observable[T]]) -> None:
        self.items: deque[T] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.make: Callable[[], Observable[T]] | None = make
        self.subscription: abc.DisposableBase | None = None

    def begin(self, make: Callable[[], Observable[T]]) -> None:
        """Subscribes, without reactivex's guard of the grammar, since nobody hears what comes after the end."""
        if self.ended:
            return
        try:
            self.subscription = connect(make(), self, self.scheduler)
        except BaseException as error:  # SystemExit, too: a reader in another thread must hear of it
            self.fail(error)
        else:
            if self.ended:
                self.over()

    def over(self) -> None:
        """Notes the end, disposes the subscription, and opens the gate for pumps that wait for the reader."""
        self.ended = True
        scheduler, subscription, self.subscription = self.scheduler, self.subscription, None
        scheduler.gate.open()
        if subscription is not None:
            subscription.dispose()
        # Breaks a reference cycle: the graph is freed here, not at any moment in the reader's thread.
        scheduler.lifetime.on_failure = not_handled

    def on_error(self, error: Exception) -> None:
        """Keeps the error for the reader, who gets it after the items that came before it."""
        if not self.ended:
            self.error = error
        self.on_completed()

    def fail(self, error: BaseException) -> bool:
        """Ends the stream with the error of a broken graph; False if the stream has ended already."""
        if self.ended:
            return False
        self.error = error
        self.dispose()
        return True

    def end(self, stop: type[Exception]) -> BaseException:
        """What the reader raises when there is nothing left: the stream's error, once, then `stop`."""
        error, self.error = self.error, None
        return stop() if error is None else raisable(error)

    def cancel(self) -> None:
        """Ends the stream before it has begun."""
        self.make = None
        self.ended = True

    def close(self) -> None:
        """Has the stream's loop dispose of the stream. Takes no lock, so a destructor may call it from anywhere."""
        self.ended = True
        with suppress(RuntimeError):  # the loop is closed
            self.scheduler.loop.call_soon_threadsafe(self.dispose)

    def dispose(self) -> None:
        """Ends the stream, on its loop."""
        self.on_completed()
