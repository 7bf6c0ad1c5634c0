"""`Sink`: the end of the graph that both bridges out of Rx share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, TypeVar

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.lifetime import not_handled
from ..runtime.loops import raisable
from ..runtime.scheduler import Scheduler
from ..runtime.source import connect

__all__ = ["Sink"]

T = TypeVar("T")


class Sink(abc.ObserverBase[T]):
    """Buffers the items until the reader takes them.

    The program holds the stream, and the stream holds the sink. The sink holds no reference to the stream, and each
    frame that waits for an item is a frame of the sink. So a traceback that the program keeps does not keep the stream
    alive: the stream is garbage-collected, and its request is closed.

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
    only_keeps: ClassVar[bool] = True  # `on_next` runs no code of the program, so it may run in any context

    def __init__(self, make: Callable[[], Observable[T]]) -> None:
        self.items: deque[T] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.make: Callable[[], Observable[T]] | None = make
        self.subscription: abc.DisposableBase | None = None

    def take(self) -> Observable[T]:
        """Return the Observable, for code that reads it in another way. The stream is then at its end.

        Raises:
            MisuseError: the stream has begun or was closed.
        """
        make = self.make
        if make is None:
            raise MisuseError("This stream has already been read or closed. Make a new one.")
        self.cancel()
        return make()

    def begin(self, make: Callable[[], Observable[T]]) -> None:
        """Subscribe. The sink ignores events after the end, so it needs no guard of the Rx grammar."""
        if self.ended:
            return
        try:
            self.subscription = connect(make(), self, self.scheduler)
        except BaseException as error:  # SystemExit, too: a reader in another thread must get it
            self.fail(error)
        else:
            if self.ended:
                self.finish()

    def finish(self) -> None:
        """Set `ended`, dispose the subscription, and open the gate for pumps that wait for the reader."""
        self.ended = True
        scheduler, subscription, self.subscription = self.scheduler, self.subscription, None
        scheduler.gate.open()
        if subscription is not None:
            subscription.dispose()
        # Breaks a reference cycle: the graph is freed here, not at any moment in the reader's thread.
        scheduler.lifetime.on_failure = not_handled

    def on_error(self, error: Exception) -> None:
        """Keep the error; the reader gets it after the items that came before it."""
        if not self.ended:
            self.error = error
        self.on_completed()

    def fail(self, error: BaseException) -> bool:
        """End the stream with an error of code around it. Return False if the stream has already ended."""
        if self.ended:
            return False
        self.error = error
        self.dispose()
        return True

    def end(self, stop: type[Exception]) -> BaseException:
        """Return the exception that the reader raises after the last item: the stream's error, once, then `stop`."""
        error, self.error = self.error, None
        return stop() if error is None else raisable(error)

    def cancel(self) -> None:
        """End a stream that has not begun."""
        self.make = None
        self.ended = True

    def close(self) -> None:
        """Let the stream's loop dispose of the stream. It takes no lock, so a destructor in any thread may call it."""
        self.ended = True
        with suppress(RuntimeError):  # the loop is closed
            self.scheduler.loop.call_soon_threadsafe(self.dispose)

    def dispose(self) -> None:
        """End the stream, on its loop."""
        self.on_completed()
