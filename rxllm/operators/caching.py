"""What was answered before: the observers behind `cached`."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from reactivex import abc
from reactivex.disposable import CompositeDisposable

from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Scheduler, Timers, call, timers
from ..runtime.source import Source, connect, source
from ..values.chunk import Chunk
from ..values.message import FinishReason, is_whole
from .attempts import Begin
from .share import Shared

__all__ = ["Running", "Store", "kept"]

T = TypeVar("T")
Running = dict[tuple[object, str], Shared[Chunk]]
"""What is being asked, by loop and key."""

_log = logging.getLogger("rxllm")


PATIENCE = 1.0  # seconds that an answer waits for its store


class Store(ABC):
    """Keeps answers by their keys. Both methods may be ``def``, if they don't block, or ``async def``.

    What they raise is logged, and so is what takes longer than a second: a cache that is broken costs money, but no
    answers. A `get` that takes longer is left, and the model is asked. A `put` goes on beside the answer, which then
    ends without it.
    """

    @abstractmethod
    def get(self, key: str, /) -> Sequence[Chunk] | Awaitable[Sequence[Chunk] | None] | None:
        """The chunks that were kept under the key, None if there are none."""

    @abstractmethod
    def put(self, key: str, chunks: Sequence[Chunk], /) -> Awaitable[None] | None:
        """Keeps the chunks of a whole answer."""


def kept(begin: Begin[Chunk], store: Store, key: str, running: Running) -> Source[Chunk]:
    """The answer under the key: of the store; else of whoever is asking just now on this loop; else it is asked for.

    ::

        ---a-b-|
        kept(begin, store, key, running)
        ---a-b-|     (and later)     (ab)|
    """

    def subscribe(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = timers(given)
        place = (scheduler.loop if isinstance(scheduler, Scheduler) else scheduler, key)

        def ask(observer: abc.ObserverBase[Chunk], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            return _Keeping(observer, timers(given), begin, store, key, forget)

        shared = running.setdefault(place, Shared(Source(ask)))

        def forget() -> None:
            if running.get(place) is shared:  # and not that of who asked since
                del running[place]

        return connect(shared.stream(), observer, scheduler)

    return Source(subscribe)


class _Keeping(abc.ObserverBase[Chunk], abc.DisposableBase):
    """One look into the store; and if there is nothing, one request."""

    def __init__(
        self,
        observer: abc.ObserverBase[Chunk],
        scheduler: Timers,
        begin: Begin[Chunk],
        store: Store,
        key: str,
        forget: Callable[[], object],
    ) -> None:
        self.observer = observer
        self.scheduler = scheduler
        self.begin = begin
        self.store = store
        self.key = key
        self.forget = forget
        self.chunks: list[Chunk] = []
        self.current = LockFreeSerialDisposable()
        call(scheduler, self.look)

    def look(self) -> None:
        self.current.disposable = waiting = LockFreeSerialDisposable()
        waiting.disposable = self.done(lambda: self.store.get(self.key), self.found)

    def done(self, work: Callable[[], Any], then: Callable[[Any], None]) -> abc.DisposableBase:
        """Goes on with what the store says, at once or when it has; where it fails, or takes too long, with nothing."""
        alarm = LockFreeSerialDisposable()

        def told(value: Any) -> None:
            if not alarm.is_disposed:
                alarm.dispose()
                then(value)

        def failed(error: Exception) -> None:
            _log.error("A store of answers failed; the answer does not depend on it.", exc_info=error)
            told(None)

        def late(*_: object) -> None:
            failed(TimeoutError(f"It has taken longer than {PATIENCE:g} s."))

        try:
            result = work()
        except Exception as error:
            failed(error)
            return alarm
        if not inspect.isawaitable(result):
            told(result)
            return alarm
        scheduler = self.scheduler
        alarm.disposable = scheduler.schedule_relative(PATIENCE, late)
        above = scheduler.daemon() if isinstance(scheduler, Scheduler) else scheduler
        return CompositeDisposable(source(lambda _: _value(result)).subscribe(told, failed, scheduler=above), alarm)

    def found(self, chunks: Sequence[Chunk] | None) -> None:
        if chunks is None:
            self.current.disposable = waiting = LockFreeSerialDisposable()
            waiting.disposable = connect(self.begin(), self, self.scheduler)
            return
        for chunk in chunks:  # into the log, where each reader has a pace of its own
            self.observer.on_next(chunk)
        self.end(None)

    def on_next(self, value: Chunk) -> None:
        if value.rest is not None and value.rest.reset:  # what was taken back is nothing to keep
            again = Chunk.of(value.message())  # all but the reset, of which a Message knows nothing
            self.chunks = [again] if again else []
        else:
            self.chunks.append(value)
        self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        if not self.current.is_disposed:
            self.dispose()
            self.observer.on_error(error)

    def on_completed(self) -> None:
        if not self.current.is_disposed:
            self.current.dispose()  # but not what follows: the answer is whole, and paid for
            chunks = tuple(self.chunks)
            if not is_whole(_reason(chunks)):
                self.end(None)
                return
            self.done(lambda: self.store.put(self.key, chunks), self.end)

    def end(self, _: object) -> None:
        self.forget()
        self.observer.on_completed()

    def dispose(self) -> None:
        self.forget()
        self.current.dispose()


def _reason(chunks: Sequence[Chunk]) -> FinishReason | None:
    """Why an answer ended, by the last chunk that says so."""
    for chunk in reversed(chunks):
        if chunk.rest is not None and chunk.rest.finish_reason is not None:
            return chunk.rest.finish_reason
    return None


async def _value(result: Awaitable[T]) -> AsyncIterator[T]:
    yield await result
