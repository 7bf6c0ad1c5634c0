"""The operator behind `cached`.

States of an answer: looking (the store looks up the key), waiting (another process asks for the answer), running (the
model answers), storing (the store gets the whole answer), ended. Only the event loop of the request changes them. All
readers of one key on one loop share one answer, see `Shared`; the entry in `Running` is removed when the answer ends or
its last reader disposes.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from reactivex import abc
from reactivex.disposable import CompositeDisposable

from ..events import Reused
from ..observation import notify
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Scheduler, Timers, call, daemon, timers
from ..runtime.source import Source, connect, source
from ..values.chunk import Chunk
from ..values.vocabulary import FinishReason, is_whole
from .attempts import Begin
from .observer import ignore
from .share import Shared

__all__ = ["JoiningStore", "Running", "Store", "kept"]

T = TypeVar("T")
Running = dict[tuple[object, str], Shared[Chunk]]
"""The answers that are running, by event loop and key."""

_log = logging.getLogger("rxllm")


PATIENCE = 1.0  # seconds until an answer continues without its store
FIRST, LAST = 0.02, 0.5  # seconds between two looks for an answer that another process asks for


class Store(ABC):
    """Keeps answers by their keys. Both methods may be ``async def``, or ``def`` if they do not block.

    A broken store costs money, but no answers: an exception is logged, and so is a call that takes longer than one
    second. After that second, `get` is cancelled and the model gets the request; `put` continues while the answer ends.
    """

    @abstractmethod
    def get(self, key: str, /) -> Sequence[Chunk] | Awaitable[Sequence[Chunk] | None] | None:
        """Return the chunks under the key; None if there are none."""

    @abstractmethod
    def put(self, key: str, chunks: Sequence[Chunk], /) -> Awaitable[None] | None:
        """Store the chunks of a whole answer under the key."""


class JoiningStore(Store):
    """A store whose callers join: one of them asks for an answer, and the others wait for it.

    `cached` calls `join` instead of `get`, and calls it again while another caller asks.
    """

    @abstractmethod
    def join(self, key: str, /) -> Awaitable[Sequence[Chunk] | bool]:
        """Return the chunks under the key, or whether this caller asks for them: False while another one does.

        A caller that asks ends with `put` or `leave`.
        """

    @abstractmethod
    def leave(self, key: str, /) -> Awaitable[None]:
        """Let another caller ask, because this one got no whole answer."""


def kept(begin: Begin[Chunk], store: Store, key: str, running: Running) -> Source[Chunk]:
    """Emit the answer under the key: from the store, else from a running request on this loop, else from a new one.

    ::

        ---a-b-|
        kept(begin, store, key, running)
        ---a-b-|     (and later)     (ab)|
    """

    def subscribe(observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = timers(requested)
        place = (scheduler.loop if isinstance(scheduler, Scheduler) else scheduler, key)

        def ask(observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            return _Keeping(observer, timers(requested), begin, store, key, forget)

        if place in running:
            notify(scheduler, lambda run: Reused(running=True, run=run))
        shared = running.setdefault(place, Shared(Source(ask)))

        def forget() -> None:
            if running.get(place) is shared:  # unless a newer answer has taken its place
                del running[place]

        return connect(shared.stream(), observer, scheduler)

    return Source(subscribe)


class _Keeping(abc.ObserverBase[Chunk], abc.DisposableBase):
    """Looks up the key once, and sends the request if the store has no answer."""

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
        self.pause = 0.0  # before the last look
        self.asks = False  # whether the other callers of the store wait for this one
        self.current = LockFreeSerialDisposable()
        call(scheduler, self.look)

    def look(self) -> None:
        store, key = self.store, self.key
        self.current.disposable = waiting = LockFreeSerialDisposable()
        if isinstance(store, JoiningStore):
            waiting.disposable = self.done(lambda: store.join(key), self.joined)
        else:
            waiting.disposable = self.done(lambda: store.get(key), self.found)

    def look_again(self, *_: object) -> None:
        self.look()

    def joined(self, answer: Sequence[Chunk] | bool | None) -> None:
        """Go on with a stored answer, ask, or wait for the caller that asks."""
        if answer is False:
            self.pause = min(LAST, 1.5 * self.pause or FIRST)
            self.current.disposable = self.scheduler.schedule_relative(self.pause, self.look_again)
            return
        self.asks = answer is True
        self.found(None if isinstance(answer, bool) else answer)

    def done(self, work: Callable[[], Any], then: Callable[[Any], None]) -> abc.DisposableBase:
        """Call `then` with the result of the store; with None if the store raises or takes too long."""
        alarm = LockFreeSerialDisposable()

        def resume(value: Any) -> None:
            if not alarm.is_disposed:
                alarm.dispose()
                then(value)

        def failed(error: Exception) -> None:
            _log.error("The store of cached() failed. The request continues without it.", exc_info=error)
            resume(None)

        def late(*_: object) -> None:
            failed(TimeoutError(f"The store took longer than {PATIENCE:g} s."))

        try:
            result = work()
        except Exception as error:
            failed(error)
            return alarm
        if not inspect.isawaitable(result):
            resume(result)
            return alarm
        scheduler = self.scheduler
        alarm.disposable = scheduler.schedule_relative(PATIENCE, late)
        return CompositeDisposable(
            source(lambda _: _value(result)).subscribe(resume, failed, scheduler=daemon(scheduler)), alarm
        )

    def found(self, chunks: Sequence[Chunk] | None) -> None:
        if chunks is None:
            self.current.disposable = waiting = LockFreeSerialDisposable()
            waiting.disposable = connect(self.begin(), self, self.scheduler)
            return
        try:
            notify(self.scheduler, lambda run: Reused(running=self.pause > 0, run=run))
        except Exception as error:  # of a handler with raise_error
            self.on_error(error)
            return
        for chunk in chunks:  # into the shared log, which each reader reads at its own pace
            self.observer.on_next(chunk)
        self.end(None)

    def on_next(self, value: Chunk) -> None:
        if value.rest is not None and value.rest.reset:  # chunks before a reset are not part of the answer
            again = Chunk.of(value.message())  # a Message has no reset, so this removes it
            self.chunks = [again] if again else []
        else:
            self.chunks.append(value)
        self.observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        if not self.current.is_disposed:
            self.forget()
            self.current.dispose()
            self.leave(lambda _: self.observer.on_error(error))

    def on_completed(self) -> None:
        if not self.current.is_disposed:
            self.current.dispose()  # the source only: storing the whole answer continues
            chunks = tuple(self.chunks)
            if not is_whole(_reason(chunks)):
                self.leave(self.end)
                return
            self.asks = False  # `put` says so to the others
            self.done(lambda: self.store.put(self.key, chunks), self.end)

    def end(self, _: object) -> None:
        self.forget()
        self.observer.on_completed()

    def leave(self, then: Callable[[Any], None]) -> None:
        """Let another caller ask, and call `then`. This process may end right after it."""
        store, key = self.store, self.key
        if self.asks and isinstance(store, JoiningStore):
            self.asks = False
            self.done(lambda: store.leave(key), then)
        else:
            then(None)

    def dispose(self) -> None:
        self.forget()
        self.current.dispose()
        self.leave(ignore)


def _reason(chunks: Sequence[Chunk]) -> FinishReason | None:
    """The finish reason of an answer: that of the last chunk with one."""
    for chunk in reversed(chunks):
        if chunk.rest is not None and chunk.rest.finish_reason is not None:
            return chunk.rest.finish_reason
    return None


async def _value(result: Awaitable[T]) -> AsyncIterator[T]:
    yield await result
