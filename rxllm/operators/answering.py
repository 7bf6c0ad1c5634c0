"""Turns a provider's answer into chunks, and keeps the partial answer for errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from contextvars import ContextVar
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar, cast

import attrs
from reactivex import Observable, abc

from ..errors import RxllmError
from ..misuse import MisuseError
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Scheduler, Timers, timers
from ..runtime.source import Source, connect
from ..values.chunk import Chunk, join, text_chunk
from ..values.message import Message
from ..values.parts import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ..values.request import Request
from ..values.usage import Usage
from .observer import ignore

__all__ = ["Answered", "Arrived", "Asked", "answering", "asked_for", "estimated", "overhearing"]

T = TypeVar("T")

Answered = str | Message | Chunk

PARTIAL_LIMIT = 4 * 2**20  # characters of an error's `partial`
CHARACTERS = 4  # of an average token: https://help.openai.com/en/articles/4936856


def answering(
    create: Callable[[], Observable[Answered]],
    request: Request,
    observer: abc.ObserverBase[Chunk],
    scheduler: Scheduler,
) -> abc.DisposableBase:
    """Subscribes to a provider's answer to the request, and turns its texts and Messages into Chunks."""
    answer = _Answer(observer, request, scheduler)
    try:
        answer.subscription.disposable = connect(create(), answer, scheduler)
    except Exception as error:  # such as a missing key
        answer.on_error(error)
    return answer


class Asked:
    """A running request. An operator that cuts it off asks it to complete the error."""

    if not TYPE_CHECKING:  # a subclass declares the slots
        __slots__ = ()

    overheard: tuple[Running, ...]
    request: Request | None

    def begun(self, scheduler: Timers) -> None:
        """Registers the request as running."""
        self.overheard = scheduler.context.get(_overheard, ()) if isinstance(scheduler, Scheduler) else ()
        for running in self.overheard:
            running[self] = None

    def ended(self) -> None:
        """Removes the request from the running ones."""
        for running in self.overheard:
            running.pop(self, None)

    def tell(self, error: RxllmError) -> None:
        """Sets the error's request, without secrets."""
        if error.request is None:
            error.request = self.request and self.request.without_secrets()


Running = dict[Asked, None]
"""Requests that have not ended, the oldest first."""

# The scheduler's context carries it upstream to the models. Requests that those models make are registered, too, later.
_overheard: ContextVar[tuple[Running, ...]] = ContextVar("rxllm_overheard", default=())


def overhearing(scheduler: Scheduler) -> tuple[Scheduler, Callable[[RxllmError], None]]:
    """For an operator that may cut an answer off: the scheduler for its upstream, and a function to complete its error.

    The function sets the request and the partial answer of the first answer that runs upstream. While no answer runs,
    as when a request waits for a limiter or for the next attempt, it sets the request only.
    """
    running: Running = {}
    above = scheduler.with_variable(_overheard, (*scheduler.context.get(_overheard, ()), running))

    def tell(error: RxllmError) -> None:
        if (answer := next((asked for asked in running if isinstance(asked, _Answer)), None)) is not None:
            answer.tell(error)
            return
        for asked in reversed(running):  # the innermost request first, because it knows most
            asked.tell(error)

    return above, tell


def asked_for(request: Request, source: Observable[T]) -> Source[T]:
    """The same stream. Operators that cut it off can name the request even while no model answers."""

    def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = timers(requested)
        if not (isinstance(scheduler, Scheduler) and scheduler.context.get(_overheard, ())):
            return connect(source, observer, scheduler)
        observing = _KnownRequest(request, observer)
        observing.begun(scheduler)
        observing.upstream.disposable = connect(source, observing, scheduler)
        return observing

    return Source(subscribe)


class _KnownRequest(Asked, abc.ObserverBase[T], abc.DisposableBase):
    def __init__(self, request: Request, observer: abc.ObserverBase[T]) -> None:
        self.request = request
        self.observer = observer
        self.on_next = observer.on_next  # type: ignore[method-assign]  # on the instance, which saves a call per value
        self.upstream = LockFreeSerialDisposable()

    def on_next(self, value: T) -> None:
        raise NotImplementedError

    def on_error(self, error: Exception) -> None:
        self.ended()
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.ended()
        self.observer.on_completed()

    def dispose(self) -> None:
        self.ended()
        self.upstream.dispose()


class Arrived:
    """Keeps what arrived of an answer, for the `partial` of an error; at most the first `PARTIAL_LIMIT` characters."""

    __slots__ = ("bound", "kept", "size")

    def __init__(self) -> None:
        # A plain text chunk is kept as a string, which the garbage collector does not track.
        self.kept: MutableSequence[Chunk | str] = []
        self.size = 0
        self.bound = 2**16

    def add(self, item: object) -> None:
        """Keeps a Chunk or a text, and ignores any other value."""
        if type(item) is Chunk:
            if item.rest is None:
                item = item.text
                self.size += len(item) + 1
            else:
                self.size += _size(item)
        elif isinstance(item, str):
            self.size += len(item) + 1
        else:
            return
        self.kept.append(item)
        if self.size > self.bound:
            self.compact()

    def message(self) -> Message | None:
        """The partial answer; None if nothing arrived."""
        return self._joined().message() if self.kept else None

    def _joined(self) -> Chunk:
        return join(_chunks(self.kept))

    def compact(self) -> None:
        """Joins the kept chunks to one, and stops keeping beyond the limit."""
        folded = self._joined()
        self.size = _size(folded)
        self.kept = [folded]
        self.bound = min(2 * self.size + 2**16, PARTIAL_LIMIT)
        if self.size > PARTIAL_LIMIT:
            self.kept = _Full([folded], maxlen=1)
            self.bound = 2**63


def _chunks(kept: Iterable[Chunk | str]) -> Iterator[Chunk]:
    """Joins consecutive texts to one chunk: a chunk for each text would cost more than reading them did."""
    for is_text, run in groupby(kept, lambda item: isinstance(item, str)):
        if is_text:
            yield text_chunk("".join(cast("Iterator[str]", run)))
        else:
            yield from cast("Iterator[Chunk]", run)


class _Answer(Arrived, Asked, abc.ObserverBase[Answered], abc.DisposableBase):
    """Stands between a provider and its subscriber. It makes each value a Chunk, and sets the `partial` of errors.

    An exception of the subscriber ends here: the request is closed, and the provider does not see the exception.
    """

    __slots__ = ("emit", "observer", "overheard", "request", "scheduler", "subscription")

    def __init__(self, observer: abc.ObserverBase[Chunk], request: Request, scheduler: Scheduler) -> None:
        super().__init__()
        self.observer = observer
        self.emit: Callable[[Chunk], None] = observer.on_next
        self.request = request
        self.scheduler = scheduler
        self.subscription = LockFreeSerialDisposable()
        self.begun(scheduler)

    def on_next(self, value: Answered) -> None:
        try:
            chunk = value if type(value) is Chunk else Chunk.of(value)
        except MisuseError as error:
            self.stop()
            self.on_error(error)
            return
        if chunk.rest is None:  # inlined from `add`, to save a call per chunk
            text = chunk.text
            self.kept.append(text)
            self.size += len(text) + 1
            if self.size > self.bound:
                self.compact()
        else:
            self.add(chunk)
        try:
            self.emit(chunk)
        except Exception as error:
            self.scheduler.report("A subscriber or an operator raised in on_next. The request was closed.", error)
            self.stop()

    def stop(self) -> None:
        self.emit = ignore
        self.dispose()

    def tell(self, error: Exception) -> None:
        """Sets the error's request and its partial answer."""
        if isinstance(error, RxllmError):
            super().tell(error)
            if error.partial is None and (partial := self.message()) is not None:
                error.partial = estimated(partial, cast("Request", self.request))

    def on_error(self, error: Exception) -> None:
        self.ended()
        self.tell(error)
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.ended()
        self.observer.on_completed()

    def dispose(self) -> None:
        self.ended()
        self.subscription.dispose()


def _size(chunk: Chunk) -> int:
    """The characters in a chunk, plus one for the chunk itself."""
    return 1 + sum(map(_length, chunk.parts))


def _length(part: Part) -> int:
    if isinstance(part, (TextPart, ReasoningPart, RefusalPart)):
        return len(part.text)
    return len(part.arguments) if isinstance(part, ToolCallPart) else 0


class _Full(deque[Chunk | str]):
    """The kept part of an answer beyond the limit. Appending does nothing."""

    def append(self, item: Chunk | str, /) -> None:
        pass


def estimated(partial: Message, request: Request) -> Message:
    """The partial answer with a token count, which is estimated if the provider has not sent it.

    Providers send the count at the end, or send a count at the start that does not grow.
    """
    reported = partial.usage or Usage()
    output = -(-sum(map(_length, partial.parts)) // CHARACTERS)
    if reported.output_tokens is not None and reported.output_tokens >= output:
        return partial
    asked = reported.input_tokens
    if asked is None:
        asked = -(-len(request.text) // CHARACTERS)
    usage = attrs.evolve(reported, input_tokens=asked, output_tokens=output, estimated=True)
    return attrs.evolve(partial, usage=usage)
