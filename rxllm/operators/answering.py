"""Turns a provider's answer into chunks, and keeps the partial answer for errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from contextvars import ContextVar
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

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

__all__ = ["CHARACTERS", "Answered", "Arrived", "PendingRequest", "answering", "estimated", "tracked", "tracking"]

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
    """Subscribe to a provider's answer to the request, and turn its texts and Messages into Chunks."""
    answer = _Answer(observer, request, scheduler)
    try:
        answer.subscription.disposable = connect(create(), answer, scheduler)
    except Exception as error:  # such as a missing key
        answer.on_error(error)
    return answer


class PendingRequest:
    """A running request. An operator that ends it early calls `complete` with its error.

    Attributes:
        has_partial: whether it has a partial answer.
    """

    has_partial: ClassVar[bool] = False

    if not TYPE_CHECKING:  # a subclass declares the slots
        __slots__ = ()

    trackers: tuple[Running, ...]
    request: Request | None

    def begun(self, scheduler: Timers) -> None:
        """Register the request as running."""
        self.trackers = scheduler.context.get(_trackers, ()) if isinstance(scheduler, Scheduler) else ()
        for running in self.trackers:
            running[self] = None

    def ended(self) -> None:
        """Remove the request from the running ones."""
        for running in self.trackers:
            running.pop(self, None)

    def complete(self, error: RxllmError) -> None:
        """Set the error's request, without secrets."""
        if error.request is None:
            error.request = self.request and self.request.without_secrets()


Running = dict[PendingRequest, None]
"""Requests that have not ended, the oldest first."""

# The scheduler's context carries it upstream to the models. Requests that those models make are registered, too, later.
_trackers: ContextVar[tuple[Running, ...]] = ContextVar("rxllm_trackers", default=())


def tracking(scheduler: Scheduler) -> tuple[Scheduler, Callable[[RxllmError], None]]:
    """Return the scheduler for the upstream of an operator that may end an answer early, and a function for its error.

    The function sets the request and the partial answer of the first answer that runs upstream. If no answer runs,
    as when a request waits for a limiter or for the next attempt, it sets the request only.
    """
    running: Running = {}
    above = scheduler.with_variable(_trackers, (*scheduler.context.get(_trackers, ()), running))

    def complete(error: RxllmError) -> None:
        if (answer := next((request for request in running if request.has_partial), None)) is not None:
            answer.complete(error)
            return
        for request in reversed(running):  # the innermost request first, because it has the most facts
            request.complete(error)

    return above, complete


def tracked(request: Request, source: Observable[T]) -> Source[T]:
    """Return the same stream. An operator that ends it early can name the request even while no model answers."""

    def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
        scheduler = timers(requested)
        if not (isinstance(scheduler, Scheduler) and scheduler.context.get(_trackers, ())):
            return connect(source, observer, scheduler)
        observing = _Tracked(request, observer)
        observing.begun(scheduler)
        observing.upstream.disposable = connect(source, observing, scheduler)
        return observing

    return Source(subscribe)


class _Tracked(PendingRequest, abc.ObserverBase[T], abc.DisposableBase):
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
    """Keeps the beginning of an answer, at most `PARTIAL_LIMIT` characters, for the `partial` of an error."""

    __slots__ = ("bound", "kept", "size")

    def __init__(self) -> None:
        # A plain text chunk is kept as a string, which the garbage collector does not track.
        self.kept: MutableSequence[Chunk | str] = []
        self.size = 0
        self.bound = 2**16

    def add(self, item: object) -> None:
        """Keep a Chunk or a text, and ignore any other value."""
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
        """Join the kept chunks to one, and stop keeping beyond the limit."""
        folded = self._joined()
        self.size = _size(folded)
        self.kept = [folded]
        self.bound = min(2 * self.size + 2**16, PARTIAL_LIMIT)
        if self.size > PARTIAL_LIMIT:
            self.kept = _Full([folded], maxlen=1)
            self.bound = 2**63


def _chunks(kept: Iterable[Chunk | str]) -> Iterator[Chunk]:
    """Join consecutive texts to one chunk: a chunk for each text would cost more than reading them did."""
    for is_text, run in groupby(kept, lambda item: isinstance(item, str)):
        if is_text:
            yield text_chunk("".join(cast("Iterator[str]", run)))
        else:
            yield from cast("Iterator[Chunk]", run)


class _Answer(Arrived, PendingRequest, abc.ObserverBase[Answered], abc.DisposableBase):
    """Stands between a provider and its subscriber. It makes each value a Chunk, and sets the `partial` of errors.

    An exception of the subscriber ends here: the request is closed, and the provider does not see the exception.
    """

    has_partial = True
    __slots__ = ("emit", "observer", "request", "scheduler", "subscription", "trackers")

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

    def complete(self, error: Exception) -> None:
        """Set the error's request and its partial answer."""
        if isinstance(error, RxllmError):
            super().complete(error)
            if error.partial is None and (partial := self.message()) is not None:
                error.partial = estimated(partial, cast("Request", self.request))

    def on_error(self, error: Exception) -> None:
        self.ended()
        self.complete(error)
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
    """The rest of an answer beyond the limit, which is not kept: `append` discards values."""

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
    input_tokens = reported.input_tokens
    if input_tokens is None:
        input_tokens = -(-len(request.text) // CHARACTERS)
    usage = attrs.evolve(reported, input_tokens=input_tokens, output_tokens=output, estimated=True)
    return attrs.evolve(partial, usage=usage)
