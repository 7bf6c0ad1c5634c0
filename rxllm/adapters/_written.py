"""`written`: an operator that turns a stream into the items of another library, by a `Writer`.

`refused_reset` is the error for a stream that begins again: no library can take items back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from reactivex import Observable, abc

from ..errors import Interrupted, RxllmError
from ..operators.observer import RefusingObserver
from ..runtime.source import Source

__all__ = ["Writer", "refused_reset", "written"]

In = TypeVar("In")
Out = TypeVar("Out")


class Writer(ABC, Generic[In, Out]):
    """Writes the items of one stream. It has a state, and knows no Observables."""

    @abstractmethod
    def write(self, value: In) -> Iterable[Out]:
        """Return the items for a value.

        Raises:
            RxllmError: there are none, and the stream fails.
        """

    def end(self) -> Iterable[Out]:
        """Return the items at the end of the stream."""
        return ()

    def fail(self, error: Exception) -> Exception:
        """Return the exception with which the stream fails."""
        return error


def written(create: Callable[[], Writer[In, Out]]) -> Callable[[Observable[In]], Observable[Out]]:
    """Emit what a writer writes for each value, and at the end. Each subscription has a writer of its own.

    Errors: those of the source and of the writer.
    """

    def operator(source: Observable[In]) -> Observable[Out]:
        return Source(lambda observer, scheduler: _Writing(observer, create()).start(source, scheduler))

    return operator


class _Writing(RefusingObserver[In, Out]):
    __slots__ = ("writer",)

    def __init__(self, observer: abc.ObserverBase[Out], writer: Writer[In, Out]) -> None:
        super().__init__(observer)
        self.writer = writer

    def on_next(self, value: In) -> None:
        try:
            items = self.writer.write(value)
        except RxllmError as error:
            self.refuse(self.writer.fail(error))
            return
        for item in items:
            self.emit(item)

    def on_error(self, error: Exception) -> None:
        super().on_error(self.writer.fail(error))

    def on_completed(self) -> None:
        if not self.ended:
            for item in self.writer.end():
                self.emit(item)
        super().on_completed()


def refused_reset(library: str) -> Interrupted:
    """Return the error for an answer that begins again after the other library has got a part of it."""
    return Interrupted(
        f"The model began its answer again after a part of it had reached {library}, which cannot take text back."
    )
