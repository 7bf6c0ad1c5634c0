"""What both ways out of Rx have in common: the far end of the graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from reactivex import Observable, abc

from ..runtime.loops import raisable
from ..runtime.scheduler import Scheduler
from ..runtime.source import connect

__all__ = ["Sink"]

T = TypeVar("T")


class Sink(abc.ObserverBase[T]):
    """Keeps what came until the iterator takes it. It does not know the iterator, so that one can be collected."""

    __slots__ = ("ended", "error", "home", "items", "subscription")

    def __init__(self, home: Scheduler) -> None:
        self.items: deque[T] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.home = home
        self.home.blame = self.fail
        self.subscription: abc.DisposableBase | None = None

    def begin(self, make: Callable[[], Observable[T]]) -> None:
        """Subscribes: it needs no guard of the grammar, since nobody hears what comes after the end."""
        try:
            subscription = self.subscription = connect(make(), self, self.home)
        except BaseException as error:  # SystemExit, too: who waits in another thread must hear of it
            self.fail(error)
        else:
            if self.ended:
                subscription.dispose()

    def over(self) -> None:
        """Nothing more will come, and nothing more is wanted; nobody is to wait for the reader."""
        self.ended = True
        self.home.gate.open()
        if self.subscription is not None:
            self.subscription.dispose()

    def on_error(self, error: Exception) -> None:
        """Keeps the error for the iterator to raise, after the items that came before it."""
        if not self.ended:
            self.error = error
        self.on_completed()

    def fail(self, error: BaseException) -> bool:
        """Hears that the graph is broken and nothing more will come; False if it is over anyway."""
        if self.ended:
            return False
        self.error = error
        self.dispose()
        return True

    def end(self, stop: type[Exception]) -> BaseException:
        """What the iterator raises when there is nothing left: the stream's error, once, then `stop`."""
        error, self.error = self.error, None
        return stop() if error is None else raisable(error)

    def close(self) -> None:
        """Leaves the stream. Takes no lock, so a destructor may call it from anywhere."""
        if not self.ended:
            self.ended = True
            with suppress(RuntimeError):  # the loop is closed
                self.home.loop.call_soon_threadsafe(self.dispose)

    def dispose(self) -> None:
        """Leaves the stream, on its loop."""
        self.on_completed()
