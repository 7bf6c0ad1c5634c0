"""The base of the observers behind most operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from reactivex import Observable, abc

from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.source import connect

__all__ = ["OperatorObserver", "RefusingObserver", "ignore"]

In = TypeVar("In")
Out = TypeVar("Out")


def ignore(value: object) -> None:
    """Drop a value. An observer that has ended calls this in place of its subscriber's `on_next`."""


class OperatorObserver(abc.ObserverBase[In], Generic[In, Out]):
    """Passes a stream on to a subscriber, and ends it at most once.

    A subclass adds `on_next`. A subclass that holds values back overrides `end`, and emits them there.

    States: open, then ended. Only calls of the source, which come one at a time, change the state.

    Attributes:
        observer: the subscriber.
        emit: the subscriber's `on_next`, looked up once, because it is called for each value.
        ended: whether the subscriber has got its error or its completion.
    """

    __slots__ = ("emit", "ended", "observer")

    def __init__(self, observer: abc.ObserverBase[Out]) -> None:
        self.observer = observer
        self.emit: Callable[[Out], object] = observer.on_next
        self.ended = False

    def on_error(self, error: Exception) -> None:
        """Emit the held values, and then the error."""
        self.end(lambda: self.observer.on_error(error))

    def on_completed(self) -> None:
        """Emit the held values, and complete."""
        self.end(self.observer.on_completed)

    def end(self, notify: Callable[[], object]) -> None:
        """Call `notify`, which errors or completes the subscriber, unless the stream has ended already."""
        if not self.ended:
            self.ended = True
            notify()


class RefusingObserver(OperatorObserver[In, Out]):
    """An operator's observer that may end the stream itself, while the source still emits.

    Attributes:
        upstream: the subscription to the source.
    """

    __slots__ = ("upstream",)

    def __init__(self, observer: abc.ObserverBase[Out]) -> None:
        super().__init__(observer)
        self.upstream = LockFreeSerialDisposable()

    def start(self, source: Observable[In], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribe to the source."""
        self.upstream.disposable = connect(source, self, scheduler)
        return self.upstream

    def refuse(self, error: Exception) -> None:
        """Dispose the source, and end the stream with an error of the operator's own.

        The source is disposed first: the subscriber may handle the error slowly, and the model would continue
        meanwhile.
        """
        if not self.ended:
            self.ended = True
            self.emit = ignore
            self.upstream.dispose()
            self.observer.on_error(error)
