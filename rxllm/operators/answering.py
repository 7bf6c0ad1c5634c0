"""What a provider answers, as chunks, and what is kept of it in case that it breaks off."""

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
from ._observer import ignore

__all__ = ["Answered", "Arrived", "Asked", "answering", "asked_for", "estimated", "overhearing"]

T = TypeVar("T")

Answered = str | Message | Chunk

PARTIAL_LIMIT = 4 * 2**20  # characters that are kept for an error's `partial`
CHARACTERS = 4  # that a token has, roughly: https://help.openai.com/en/articles/4936856


def answering(
    made: Callable[[], Observable[Answered]], request: Request, observer: abc.ObserverBase[Chunk], scheduler: Scheduler
) -> abc.DisposableBase:
    """Subscribes to what a provider makes of the request, be it texts, Messages or Chunks, as chunks."""
    answer = _Answer(observer, request, scheduler)
    try:
        answer.subscription.disposable = connect(made(), answer, scheduler)
    except Exception as error:  # such as a missing key
        answer.on_error(error)
    return answer


class Asked:
    """A request on its way, from which an operator that cuts it off learns what to tell with its error."""

    if not TYPE_CHECKING:  # the slots are those of the classes made of it
        __slots__ = ()

    overheard: tuple[Running, ...]
    request: Request | None

    def begun(self, scheduler: Timers) -> None:
        """It is on its way."""
        self.overheard = scheduler.context.get(_overheard, ()) if isinstance(scheduler, Scheduler) else ()
        for running in self.overheard:
            running[self] = None

    def ended(self) -> None:
        """It is no longer on its way."""
        for running in self.overheard:
            running.pop(self, None)

    def tell(self, error: RxllmError) -> None:
        """Tells an error of the request."""
        if error.request is None:
            error.request = self.request and self.request.without_secrets()


Running = dict[Asked, None]
"""Requests that have not ended, in the order in which they were asked for."""

# The scheduler's context takes it up to the models. What these ask for is inside of it, too, but comes later.
_overheard: ContextVar[tuple[Running, ...]] = ContextVar("rxllm_overheard", default=())


def overhearing(scheduler: Scheduler) -> tuple[Scheduler, Callable[[RxllmError], None]]:
    """For an operator that may cut an answer off: the scheduler for its upstream, and what tells its error about it.

    That is the request, and what had arrived, of the first answer that is on its way above. Where there is none yet,
    as while a request waits for its turn or for the next attempt, it is the request.
    """
    running: Running = {}
    above = scheduler.with_variable(_overheard, (*scheduler.context.get(_overheard, ()), running))

    def tell(error: RxllmError) -> None:
        if (answer := next((asked for asked in running if isinstance(asked, _Answer)), None)) is not None:
            answer.tell(error)
            return
        for asked in reversed(running):  # the innermost first: it knows most
            asked.tell(error)

    return above, tell


def asked_for(request: Request, source: Observable[T]) -> Source[T]:
    """The same stream, of which operators that cut it off know the request, also between the answers of models."""

    def subscribe(observer: abc.ObserverBase[T], given: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = timers(given)
        if not (isinstance(scheduler, Scheduler) and scheduler.context.get(_overheard, ())):
            return connect(source, observer, scheduler)
        known = _Known(request, observer)
        known.begun(scheduler)
        known.upstream.disposable = connect(source, known, scheduler)
        return known

    return Source(subscribe)


class _Known(Asked, abc.ObserverBase[T], abc.DisposableBase):
    def __init__(self, request: Request, observer: abc.ObserverBase[T]) -> None:
        self.request = request
        self.observer = observer
        self.on_next = observer.on_next  # type: ignore[method-assign]  # in the instance, so that it costs no call
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
    """What came of an answer, kept in case that it breaks off: its beginning, if that is longer than the limit."""

    __slots__ = ("bound", "kept", "size")

    def __init__(self) -> None:
        # Plain text as its text alone: a string is nothing that the garbage collector has to look at.
        self.kept: MutableSequence[Chunk | str] = []
        self.size = 0
        self.bound = 2**16

    def add(self, some: object) -> None:
        """Keeps a chunk, or text; anything else is no part of an answer."""
        if type(some) is Chunk:
            if some.rest is None:
                some = some.text
                self.size += len(some) + 1
            else:
                self.size += _size(some)
        elif isinstance(some, str):
            self.size += len(some) + 1
        else:
            return
        self.kept.append(some)
        if self.size > self.bound:
            self.compact()

    def message(self) -> Message | None:
        """All of it, None if nothing came."""
        return self._joined().message() if self.kept else None

    def _joined(self) -> Chunk:
        return join(_chunks(self.kept))

    def compact(self) -> None:
        """Keeps it small: one chunk instead of many, and none beyond the limit."""
        folded = self._joined()
        self.size = _size(folded)
        self.kept = [folded]
        self.bound = min(2 * self.size + 2**16, PARTIAL_LIMIT)
        if self.size > PARTIAL_LIMIT:
            self.kept = _Full([folded], maxlen=1)
            self.bound = 2**63


def _chunks(kept: Iterable[Chunk | str]) -> Iterator[Chunk]:
    """Texts in a row become one chunk; one for each would cost more than reading them did."""
    for is_text, run in groupby(kept, lambda some: isinstance(some, str)):
        if is_text:
            yield text_chunk("".join(cast("Iterator[str]", run)))
        else:
            yield from cast("Iterator[Chunk]", run)


class _Answer(Arrived, Asked, abc.ObserverBase[Answered], abc.DisposableBase):
    """Stands between a provider and its subscriber: makes everything a Chunk, and gives errors what had arrived.

    What the subscriber raises ends here: the request is closed, and the provider never hears of it.
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
        if chunk.rest is None:  # as `add` does, without the call
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
            self.scheduler.report("A subscriber, or an operator before it, raised; the request is closed.", error)
            self.stop()

    def stop(self) -> None:
        self.emit = ignore
        self.dispose()

    def tell(self, error: Exception) -> None:
        """Tells an error of the request, and of what had arrived."""
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
    """The characters of all that may grow, and one for the chunk."""
    return 1 + sum(map(_length, chunk.parts))


def _length(part: Part) -> int:
    if isinstance(part, (TextPart, ReasoningPart, RefusalPart)):
        return len(part.text)
    return len(part.arguments) if isinstance(part, ToolCallPart) else 0


class _Full(deque[Chunk | str]):
    """What was kept before the limit was reached; takes no more."""

    def append(self, item: Chunk | str, /) -> None:
        pass


def estimated(partial: Message, request: Request) -> Message:
    """What came of an answer that broke off, with the tokens that it took: guessed, where nobody has told.

    Providers count at the end, or begin with a count that does not grow.
    """
    told = partial.usage or Usage()
    output = -(-sum(map(_length, partial.parts)) // CHARACTERS)
    if told.output_tokens is not None and told.output_tokens >= output:
        return partial
    asked = told.input_tokens
    if asked is None:
        asked = -(-len(request.text) // CHARACTERS)
    usage = attrs.evolve(told, input_tokens=asked, output_tokens=output, estimated=True)
    return attrs.evolve(partial, usage=usage)
